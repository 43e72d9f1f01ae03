-- Whose is what a provider keeps: files, batches, stored responses … Ids are hashed by the nodes.
create table object (
  family text not null, kind text not null, ident bytea not null, usr text not null,
  account text not null,
  made double precision not null,                 -- unix seconds
  until double precision not null,                -- moved on by use
  models jsonb not null default '{}',             -- of a batch's requests: the most tokens of each model …
  expected jsonb not null default '{}',           -- … and what they are likely to use
  key text not null default '',                   -- the pool key an upload was started with
  batch text not null default '',                 -- the batch whose results a file holds
  primary key (family, kind, ident, usr)
) with (fillfactor = 80);
create index object_usr on object (usr, family, kind, until);

-- Whoever has an object under one of these ids.
create function object_read_1(p_family text, p_kind text[], p_ident bytea[]) returns setof object
language sql stable security definer set search_path = pool, pg_temp as $$
  select o.* from unnest(p_kind, p_ident) as a (kind, ident)
    join object o on o.family = p_family and o.kind = a.kind and o.ident = a.ident
    where o.until > extract(epoch from clock_timestamp())
$$;

create function object_list_1(p_usr text, p_family text, p_kind text)
returns table (account text, ident bytea)
language sql stable security definer set search_path = pool, pg_temp as $$
  select o.account, o.ident from object o
    where o.usr = p_usr and o.family = p_family and o.kind = p_kind and o.until > extract(epoch from clock_timestamp())
$$;

-- Objects become somebody's, for so many seconds from now; of those that are already, what is not told stays. Times are
-- the database's.
create function object_keep_1(p_usr text, p_family text, p_kind text[], p_ident bytea[], p_life double precision[],
  p_account text, p_models jsonb, p_expected jsonb, p_key text, p_batch text) returns void
language plpgsql security definer set search_path = pool, pg_temp as $$
declare clock double precision := extract(epoch from clock_timestamp());
begin
  insert into object as o
    select p_family, a.kind, a.ident, p_usr, p_account, clock, clock + a.life, p_models, p_expected, p_key, p_batch
      from unnest(p_kind, p_ident, p_life) as a (kind, ident, life) order by 2, 3
    on conflict (family, kind, ident, usr) do update set account = p_account, until = excluded.until,
      models = case when p_models = '{}' then o.models else p_models end,
      expected = case when p_expected = '{}' then o.expected else p_expected end,
      key = case when p_key = '' then o.key else p_key end,
      batch = case when p_batch = '' then o.batch else p_batch end;
end $$;

-- It is gone at the provider; of everybody where no name is told.
create function object_forget_1(p_family text, p_kind text, p_ident bytea, p_usr text) returns void
language sql security definer set search_path = pool, pg_temp as $$
  delete from object where family = p_family and kind = p_kind and ident = p_ident and p_usr in ('', usr)
$$;

-- Drops what is past its time, and of those who have more than `p_most` of a kind what would end first.
create function object_sweep_1(p_most int, p_limit int) returns bigint
language plpgsql security definer set search_path = pool, pg_temp as $$
declare n bigint; m bigint;
begin
  delete from object where ctid in (
    select ctid from object where until <= extract(epoch from clock_timestamp()) limit p_limit);
  get diagnostics n = row_count;
  delete from object o using (
      select family, kind, ident, usr, row_number() over (partition by usr, family, kind order by until desc) as place
        from object where (usr, family, kind) in (
          select usr, family, kind from object group by 1, 2, 3 having count(*) > p_most)) as x
    where x.place > p_most and (o.family, o.kind, o.ident, o.usr) = (x.family, x.kind, x.ident, x.usr);
  get diagnostics m = row_count;
  return n + m;
end $$;

create index object_until on object (until);
grant select on object to pool_app;
