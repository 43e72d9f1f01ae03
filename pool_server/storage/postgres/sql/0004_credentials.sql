-- Credentials, sealed by the nodes: no key to open them is here. The version rises with each new secret, and whoever
-- writes says which one theirs was made from.
create table credential (
  account text primary key check (length(account) between 1 and 400),
  provider text not null,
  version bigint not null,
  seq bigint not null,
  sealed bytea,                                   -- null: removed
  due double precision,                           -- unix seconds of the next refresh, kept over restarts
  tries int not null default 0
);
create index credential_seq on credential (seq);

-- The new version; null when somebody has written since `p_from` (0 = there is none yet).
create function credential_put_1(
  p_account text, p_provider text, p_from bigint, p_sealed bytea) returns bigint
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  n bigint := feed_raise('credentials');
  v bigint;
begin
  if p_from = 0 then
    insert into credential as c values (p_account, p_provider, 1, n, p_sealed)
      on conflict (account) do nothing returning c.version into v;
  else
    update credential c set provider = p_provider, version = c.version + 1, seq = n, sealed = p_sealed,
        due = null, tries = 0
      where c.account = p_account and c.version = p_from returning c.version into v;
  end if;
  return v;
end $$;

-- The same secret under another sealing key.
create function credential_reseal_1(p_account text, p_version bigint, p_had bytea, p_sealed bytea) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  update credential set sealed = p_sealed where account = p_account and version = p_version and sealed = p_had;
  return found;
end $$;

create function credentials_1(p_since bigint) returns setof credential
language sql stable security definer set search_path = pool, pg_temp as $$
  select * from credential where seq > p_since order by account
$$;

create function credential_1(p_account text) returns setof credential
language sql stable security definer set search_path = pool, pg_temp as $$
  select * from credential where account = p_account
$$;

-- When a refresh is to be tried again, and how often it failed: a new leader must not ask at once what was refused.
create function credential_due_1(p_account text, p_version bigint, p_due double precision, p_tries int) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  update credential set due = p_due, tries = p_tries where account = p_account and version = p_version;
  return found;
end $$;

grant select (account, provider, version, seq, due, tries) on credential to pool_app;
