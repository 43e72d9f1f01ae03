-- What nodes share beside people, accounts and records: settings that were changed on a page, who took how much of a provider
-- lately, sign-ins under way. And a record is kept once by its id, however far apart two of one id lie.

insert into feed (name) values ('settings');

create table setting (key text primary key check (length(key) between 1 and 200), value text not null check (length(value) <= 2000));

-- Null: back to what each node's file says. All nodes read their settings again.
create function setting_put_1(p_key text, p_value text) returns bigint
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  if p_value is null then
    delete from setting where key = p_key;
  else
    insert into setting values (p_key, p_value) on conflict (key) do update set value = excluded.value;
  end if;
  return feed_raise('settings');
end $$;

create function reload_1() returns bigint
language sql security definer set search_path = pool, pg_temp as $$
  select feed_raise('settings')
$$;

-- Marks of a node's settings by section, by which differences between nodes are seen.
create function node_settings_1(p_node int, p_settings jsonb) returns void
language sql security definer set search_path = pool, pg_temp as $$
  update node set settings = p_settings where id = p_node
$$;

-- What one life of a process has seen somebody take of a provider in a stretch of time (its number since 1970), in all: said
-- again it is the same.
create table share_use (
  life bigint not null, provider text not null, usr text not null, slot bigint not null, amount double precision not null,
  primary key (provider, slot, usr, life)
) with (fillfactor = 70);

create function share_put_1(
  p_life bigint, p_provider text[], p_usr text[], p_slot bigint[], p_amount double precision[], p_oldest bigint) returns void
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  insert into share_use as s select p_life, x.provider, x.usr, x.slot, x.amount
    from unnest(p_provider, p_usr, p_slot, p_amount) as x (provider, usr, slot, amount) order by 2, 4, 3
    on conflict (provider, slot, usr, life) do update set amount = greatest(s.amount, excluded.amount);
  delete from share_use where provider = any (p_provider) and slot < p_oldest;
end $$;

create function share_read_1(p_provider text[], p_oldest bigint)
returns table (provider text, usr text, slot bigint, amount double precision)
language sql stable security definer set search_path = pool, pg_temp as $$
  select s.provider, s.usr, s.slot, sum(s.amount) from share_use s
  where s.provider = any (p_provider) and s.slot >= p_oldest group by 1, 2, 3 order by 1, 2, 3
$$;

create table sign_in (
  id text primary key check (length(id) between 1 and 200), version bigint not null, ends timestamptz not null, body bytea not null
);

-- Version 0: a new one. False where somebody has written since.
create function sign_in_put_1(p_id text, p_from bigint, p_body bytea, p_seconds double precision) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
declare until timestamptz := clock_timestamp() + make_interval(secs => p_seconds);
begin
  if p_from = 0 then
    insert into sign_in values (p_id, 1, until, p_body) on conflict do nothing;
  else
    update sign_in set version = version + 1, ends = until, body = p_body where id = p_id and version = p_from;
  end if;
  return found;
end $$;

create function sign_in_drop_1(p_id text) returns void
language sql security definer set search_path = pool, pg_temp as $$
  delete from sign_in where id = p_id or ends < clock_timestamp()
$$;

create function sign_ins_1(p_id text) returns setof sign_in
language sql stable security definer set search_path = pool, pg_temp as $$
  select * from sign_in where (p_id is null or id = p_id) and ends >= clock_timestamp()
$$;

-- `ship_2`, which took an id that lay more than a day apart for another record.
create function ship_3(
  p_node int, p_from bigint, p_to bigint, p_at double precision[], p_id text[], p_usr text[], p_jti text[], p_account text[],
  p_model text[], p_outcome text[], p_status int[], p_tok bigint[], p_cost bigint[], p_body bytea[], p_provider text[],
  p_session text[], p_shares delta[]) returns text[]
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  n record;
  fresh text[];
  had text[];
  moments timestamptz[] := array(select to_timestamp(a) from unnest(p_at) with ordinality as x (a, i) order by i);
begin
  select node.shipped, node.dead into n from node where id = p_node for no key update;
  if n.dead is not null then
    raise exception 'the node is dead' using errcode = 'PL002';
  elsif n.shipped >= p_to and p_to > p_from then     -- said again, after an answer that was lost
    return (select coalesce(array_agg(r.id), '{}') from unnest(moments, p_id) as b (m, id)
      join record r on r.at = b.m and r.id = b.id where r.node = p_node and r.seq = p_to);
  elsif n.shipped <> p_from then
    raise exception 'shipped %, not %', n.shipped, p_from using errcode = 'PL003';
  end if;
  perform record_weeks(moments);
  had := array(select r.id from record r where r.id = any (p_id));
  with kept as (
    insert into record (at, id, node, seq, usr, jti, account, model, outcome, status, tok, cost, body, provider, session)
      select distinct on (b.id) m, b.id, p_node, p_to, b.usr, b.jti, b.account, b.model, b.outcome, b.status, b.tok, b.cost,
        b.body, b.provider, b.session
      from unnest(moments, p_id, p_usr, p_jti, p_account, p_model, p_outcome, p_status, p_tok, p_cost, p_body, p_provider,
        p_session) as b (m, id, usr, jti, account, model, outcome, status, tok, cost, body, provider, session)
      where b.id <> all (had)
      on conflict (id, at) do nothing returning record.id)
    select coalesce(array_agg(id), '{}') into fresh from kept;
  insert into delta
    select s.node, s.seq, s.i, s.minute, s.hour, s.day, s.usr, s.account, s.model, s.program, s.key, s.project, s.conversation, s.sums
    from unnest(p_shares) s join unnest(p_id) with ordinality as k (id, i) on k.i = s.i join unnest(fresh) as f (id) on f.id = k.id;
  update node set shipped = p_to, oldest = least(oldest, (select min(m) from unnest(moments) m)) where id = p_node;
  return fresh;
end $$;

grant select on setting to pool_app;
