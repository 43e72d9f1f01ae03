-- Sums of what was recorded, the history of quota windows, and whose usage of a job is counted. What a record adds to the
-- sums is written beside it (`delta`), with it or not at all, and added to the rollups later, many at a time, by one node.

alter table record add column provider text not null default '', add column session text not null default '';

create index record_at on record (at, id);

create table delta (
  node int not null, seq bigint not null, i int not null,
  minute int not null, hour int not null, day int not null,          -- where these begin
  usr text not null, account text not null, model text not null,     -- the account always begins with "provider:"
  program text not null, key text not null, project text not null, conversation text not null,
  sums bytea not null,
  primary key (node, seq, i)
);

-- grain: m, h, d. dim: - pool, p provider, a account, u user, m model, M user and model, A user and account, c account and
-- model, C all three; of labels g program, j project, and by user G program, k key, J project, s conversation. `label` is the
-- provider or the label. spread: histograms and endings; extra: counts that most rows have none of.
create table rollup (
  grain text collate "C" not null, dim text collate "C" not null, bucket int not null,
  usr text collate "C" not null, account text collate "C" not null, model text collate "C" not null, label text collate "C" not null,
  requests bigint not null, failures bigint not null, partial bigint not null, input bigint not null, cache_read bigint not null,
  cache_write bigint not null, cache_write_1h bigint not null, output bigint not null, reasoning bigint not null,
  web_searches bigint not null, cost_nano bigint not null, unpriced bigint not null, attempts bigint not null,
  first_byte_ms bigint not null, first_byte_n bigint not null, total_ms bigint not null, total_n bigint not null,
  request_bytes bigint not null, response_bytes bigint not null,
  spread bytea, extra bytea,
  primary key (grain, dim, bucket, usr, account, model, label)
) with (fillfactor = 70);
create index rollup_usr on rollup (grain, dim, usr, bucket) where usr <> '';
create index rollup_account on rollup (grain, dim, account, bucket) where account <> '' and dim <> 'a';

create table sighting (
  account text not null, scope text not null, win text not null, at double precision not null,
  percent double precision not null, resets double precision, seconds bigint not null, source text not null,
  primary key (account, scope, win, at)
);

-- A stored response or a batch: the usage that its maker reserved, and the record in which it counts.
create table job (
  name text primary key, at timestamptz not null default clock_timestamp(),
  reserved bytea, counted text, by_run bool
);

create table fold (one bool primary key default true check (one));
insert into fold default values;

-- Whether a record of a job may count its usage. A run of the model counts also under an id that another run had; what a
-- fetch of its result has counted before it ended it counts no second time. `p_reserved`: this record made the job.
create function job_claim_1(p_name text, p_id text, p_counted bool, p_run bool, p_reserved bytea) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
declare had job;
begin
  insert into job (name) values (p_name) on conflict do nothing;
  select * into strict had from job where name = p_name for update;
  if p_reserved is not null and had.reserved is null then
    update job set reserved = p_reserved where name = p_name;
  end if;
  if not p_counted or had.counted = p_id then
    return true;
  elsif had.counted is not null and not p_run then
    return false;
  end if;
  update job set counted = p_id, by_run = p_run where name = p_name;
  return had.counted is null or had.by_run;
end $$;

-- `ship_1` with what the records add to the sums, `p_shares`, of those that are not added otherwise. Returns the ids that
-- were new: an id is another record only when it lies a day apart.
create function ship_2(
  p_node int, p_from bigint, p_to bigint, p_at double precision[], p_id text[], p_usr text[], p_jti text[], p_account text[],
  p_model text[], p_outcome text[], p_status int[], p_tok bigint[], p_cost bigint[], p_body bytea[], p_provider text[],
  p_session text[], p_shares delta[]) returns text[]
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  n record;
  fresh text[];
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
  with kept as (
    insert into record (at, id, node, seq, usr, jti, account, model, outcome, status, tok, cost, body, provider, session)
      select distinct on (b.id) m, b.id, p_node, p_to, b.usr, b.jti, b.account, b.model, b.outcome, b.status, b.tok, b.cost,
        b.body, b.provider, b.session
      from unnest(moments, p_id, p_usr, p_jti, p_account, p_model, p_outcome, p_status, p_tok, p_cost, p_body, p_provider,
        p_session) as b (m, id, usr, jti, account, model, outcome, status, tok, cost, body, provider, session)
      where not exists (
        select from record r where r.id = b.id and r.at > b.m - interval '1 day' and r.at < b.m + interval '1 day')
      on conflict (id, at) do nothing returning record.id)
    select coalesce(array_agg(id), '{}') into fresh from kept;
  insert into delta
    select s.node, s.seq, s.i, s.minute, s.hour, s.day, s.usr, s.account, s.model, s.program, s.key, s.project, s.conversation, s.sums
    from unnest(p_shares) s join unnest(p_id) with ordinality as k (id, i) on k.i = s.i join unnest(fresh) as f (id) on f.id = k.id;
  update node set shipped = p_to, oldest = least(oldest, (select min(m) from unnest(moments) m)) where id = p_node;
  return fresh;
end $$;

-- Whose turn it is to change the sums, until the end of the transaction.
create function fold_begin_1() returns void language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  perform 1 from fold for update;
end $$;

-- Rows of the sums as they are now.
create function fold_put_1(p_rows rollup[]) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into rollup select * from unnest(p_rows)
  on conflict (grain, dim, bucket, usr, account, model, label) do update set
    requests = excluded.requests, failures = excluded.failures, partial = excluded.partial, input = excluded.input,
    cache_read = excluded.cache_read, cache_write = excluded.cache_write, cache_write_1h = excluded.cache_write_1h,
    output = excluded.output, reasoning = excluded.reasoning, web_searches = excluded.web_searches,
    cost_nano = excluded.cost_nano, unpriced = excluded.unpriced, attempts = excluded.attempts,
    first_byte_ms = excluded.first_byte_ms, first_byte_n = excluded.first_byte_n, total_ms = excluded.total_ms,
    total_n = excluded.total_n, request_bytes = excluded.request_bytes, response_bytes = excluded.response_bytes,
    spread = excluded.spread, extra = excluded.extra
$$;

-- What was added to the sums.
create function fold_end_1(p_node int[], p_seq bigint[], p_i int[]) returns void
language sql security definer set search_path = pool, pg_temp as $$
  delete from delta d using unnest(p_node, p_seq, p_i) as gone (node, seq, i)
  where d.node = gone.node and d.seq = gone.seq and d.i = gone.i
$$;

-- Keeps a sighting unless it says nothing new beside the one before it; the rule is that of ledger/quota_history.py.
create function sighting_1(
  p_account text, p_scope text, p_win text, p_at double precision, p_percent double precision, p_resets double precision,
  p_seconds bigint, p_source text) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
declare had sighting;
begin
  select * into had from sighting s where s.account = p_account and s.scope = p_scope and s.win = p_win and s.at <= p_at
    order by s.at desc limit 1;
  if found and abs(p_at - had.at) < 900 and p_percent = had.percent
      and coalesce(abs(p_resets - had.resets) <= 90, p_resets is null and had.resets is null) then
    return false;
  end if;
  insert into sighting values (p_account, p_scope, p_win, p_at, p_percent, p_resets, p_seconds, p_source)
    on conflict (account, scope, win, at) do update set percent = p_percent, resets = p_resets, seconds = p_seconds, source = p_source;
  return true;
end $$;

-- Forgets what is before these times (unix seconds), at most so many rows of a kind; returns the rows that went. Weeks of
-- records go at once. The last sighting of a window stays.
create function forget_1(p_records double precision, p_minutes int, p_hours int, p_most int) returns bigint
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  week text;
  gone bigint := 0;
  n bigint;
begin
  for week in select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'pool.record'::regclass and c.relname ~ '^record_[0-9]{8}$'
        and to_timestamp(p_records) >= (to_date(substr(c.relname, 8), 'YYYYMMDD')::timestamp at time zone 'UTC') + interval '7 days' loop
    execute format('drop table %I', week);
  end loop;
  delete from record where (id, at) in (select r.id, r.at from record r where r.at < to_timestamp(p_records) limit p_most);
  get diagnostics n = row_count; gone := gone + n;
  delete from rollup where (grain, dim, bucket, usr, account, model, label) in (
    select r.grain, r.dim, r.bucket, r.usr, r.account, r.model, r.label from rollup r
    where r.grain = 'm' and r.bucket < p_minutes or r.grain = 'h' and r.bucket < p_hours
      or r.grain = 'd' and r.dim = 's' and r.bucket < p_records limit p_most);
  get diagnostics n = row_count; gone := gone + n;
  delete from sighting where (account, scope, win, at) in (
    select s.account, s.scope, s.win, s.at from sighting s
    where s.at < p_records and exists (select from sighting l where (l.account, l.scope, l.win) = (s.account, s.scope, s.win) and l.at > s.at)
    limit p_most);
  get diagnostics n = row_count; gone := gone + n;
  delete from job where name in (select name from job where at < to_timestamp(p_records) limit p_most);
  get diagnostics n = row_count; gone := gone + n;
  return gone;
end $$;

grant select on delta, rollup, sighting, job to pool_app, pool_read;
