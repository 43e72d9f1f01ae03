-- Usage records, a partition a week. A node ships the batches of its journal in their order; a record is kept once by its
-- id, whoever ships it, also the successor of a node that died. What it settles stands beside its packed form.
create table record (
  at timestamptz not null,
  id text collate "C" not null check (length(id) between 1 and 400),
  node int not null,
  seq bigint not null,
  usr text not null,
  jti text not null,
  account text not null,
  model text not null,
  outcome text not null,
  status smallint not null,
  tok bigint not null,
  cost bigint,                                    -- nano-dollars; null: no price is known
  body bytea not null,
  primary key (id, at)
) partition by range (at);
create index record_usr on record (usr, at desc);
create index record_account on record (account, at desc);
create index record_failed on record (at desc) where outcome not in ('ok', 'client_gone');

-- Makes the partitions that these moments need.
create function record_weeks(p_at timestamptz[]) returns void language plpgsql as $$
declare
  week timestamptz;
  name text;
begin
  for week in select distinct date_trunc('week', a, 'UTC') from unnest(p_at) a loop
    name := 'record_' || to_char(week at time zone 'UTC', 'YYYYMMDD');
    if to_regclass('pool.' || name) is null then
      perform pg_advisory_xact_lock(hashtextextended('pool record', 0));
      execute format('create table if not exists %I partition of record for values from (%L) to (%L)', name, week, week + interval '7 days');
    end if;
  end loop;
end $$;

-- One batch of a node's journal, up to the number `p_to`: `p_from` must be the number it shipped last. Said again, after an
-- answer that was lost, it changes nothing. Returns the ids that are the node's own, new ones: what it may settle.
create function ship_1(
  p_node int, p_from bigint, p_to bigint, p_at double precision[], p_id text[], p_usr text[], p_jti text[], p_account text[],
  p_model text[], p_outcome text[], p_status int[], p_tok bigint[], p_cost bigint[], p_body bytea[]) returns setof text
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  n record;
  moments timestamptz[] := array(select to_timestamp(a) from unnest(p_at) with ordinality as x (a, i) order by i);
begin
  select node.shipped, node.dead into n from node where id = p_node for no key update;
  if n.dead is not null then
    raise exception 'the node is dead' using errcode = 'PL002';
  end if;
  if n.shipped = p_from then
    perform record_weeks(moments);
    return query insert into record
      select distinct on (b.id) m, b.id, p_node, p_to, b.usr, b.jti, b.account, b.model, b.outcome, b.status, b.tok, b.cost, b.body
      from unnest(moments, p_id, p_usr, p_jti, p_account, p_model, p_outcome, p_status, p_tok, p_cost, p_body)
        as b (m, id, usr, jti, account, model, outcome, status, tok, cost, body)
      on conflict (id, at) do nothing returning record.id;
    update node set shipped = p_to, oldest = least(oldest, (select min(m) from unnest(moments) m)) where id = p_node;
  elsif n.shipped < p_to or p_to <= p_from then
    raise exception 'shipped %, not %', n.shipped, p_from using errcode = 'PL003';
  else
    return query select r.id from unnest(moments, p_id) as b (m, id) join record r on r.at = b.m and r.id = b.id
      where r.node = p_node and r.seq = p_to;
  end if;
end $$;

-- Counters as another store knew them; those that are here already stay.
create function use_import_1(
  p_usr text, p_jti text, p_r5_at bigint, p_r5 bigint[], p_marks bigint[], p_tok bigint[], p_cost bigint[],
  p_ratio double precision) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  insert into use (usr, jti, r5_at, r5, day, week, month, day_tok, week_tok, month_tok, day_cost, week_cost, month_cost, ratio)
    values (p_usr, p_jti, p_r5_at, p_r5, p_marks[1], p_marks[2], p_marks[3], p_tok[1], p_tok[2], p_tok[3],
      p_cost[1], p_cost[2], p_cost[3], p_ratio) on conflict do nothing;
  return found;
end $$;

grant select on record to pool_app, pool_read;
