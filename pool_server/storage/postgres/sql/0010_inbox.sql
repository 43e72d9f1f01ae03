-- Credentials come from any node's pool folder, leave by command or page, and can be brought back.

alter table credential
  add column own bool not null default false,              -- written by the pool itself, not by somebody who signed in
  add column digest text not null default '',              -- of the file it came from: the same file again is no news
  add column removed double precision;                     -- unix seconds; null: it is in the pool

-- The new version; null when somebody has written, or taken it out, since `p_from` (0 = there is none yet). `p_anew`: also
-- in the place of one that was taken out.
create function credential_put_2(
  p_account text, p_provider text, p_from bigint, p_sealed bytea, p_own bool, p_digest text, p_anew bool) returns bigint
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  n bigint := feed_raise('credentials');
  v bigint;
begin
  if p_from = 0 then
    insert into credential as c (account, provider, version, seq, sealed, own, digest)
      values (p_account, p_provider, 1, n, p_sealed, p_own, coalesce(p_digest, ''))
      on conflict (account) do nothing returning c.version into v;
  else
    update credential c set provider = p_provider, version = c.version + 1, seq = n, sealed = p_sealed, own = p_own,
        digest = coalesce(p_digest, c.digest), removed = null, due = null, tries = 0
      where c.account = p_account and c.version = p_from and (p_anew or c.removed is null) returning c.version into v;
  end if;
  return v;
end $$;

-- Takes one out of the pool, with all that is kept of it or so that it can be brought back; false when it is not there.
create function credential_remove_1(p_account text, p_at double precision, p_wipe bool) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
declare n bigint := feed_raise('credentials');
begin
  update credential set removed = p_at, seq = n, digest = '', sealed = case when p_wipe then null else sealed end
    where account = p_account and removed is null;
  return found;
end $$;

create function credential_restore_1(p_account text) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
declare n bigint := feed_raise('credentials');
begin
  update credential set removed = null, seq = n
    where account = p_account and removed is not null and sealed is not null;
  return found;
end $$;

-- What was taken out so long ago is not brought back any more.
create function credential_sweep_1(p_before double precision) returns void
language sql security definer set search_path = pool, pg_temp as $$
  update credential set sealed = null where removed < p_before and sealed is not null
$$;

grant select (own, digest, removed) on credential to pool_app;
