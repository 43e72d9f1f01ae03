-- `ship_3` in one parameter for all of a batch, which an array for each column made dear to encode, and without a look at
-- every week for ids whose own time says where they lie.

-- One batch of a node's journal, up to the number `p_to`: `p_from` must be the number it shipped last. Said again, after an
-- answer that was lost, it changes nothing. Returns the ids that were new. `p_days`: when the days begin (unix seconds, UTC)
-- in which the records lie, in order. `p_odd`: those of `p_id` that may lie anywhere; others are looked for within a day of
-- `p_days`. A record with `sums` adds these to the sums; the others are added otherwise.
-- Its plans are made while a week is empty, and would read all of it later: hence by index alone.
create function ship_4(p_node int, p_from bigint, p_to bigint, p_days double precision[], p_id text[], p_odd text[], p_batch json)
returns text[] language plpgsql security definer
set search_path = pool, pg_temp set enable_seqscan = off set jit = off as $$
declare
  n record;
  fresh text[];
  had text[];
  since timestamptz := to_timestamp(p_days[1]) - interval '1 day';
  until timestamptz := to_timestamp(p_days[array_upper(p_days, 1)]) + interval '2 days';
begin
  perform set_config('synchronous_commit', 'off', true);
  select node.shipped, node.dead into n from node where id = p_node for no key update;
  if n.dead is not null then
    raise exception 'the node is dead' using errcode = 'PL002';
  elsif n.shipped >= p_to and p_to > p_from then     -- said again, after an answer that was lost
    return array(select r.id from record r where r.id = any (p_id) and r.at >= since and r.at < until and r.node = p_node and r.seq = p_to);
  elsif n.shipped <> p_from then
    raise exception 'shipped %, not %', n.shipped, p_from using errcode = 'PL003';
  end if;
  perform record_weeks(array(select to_timestamp(d) from unnest(p_days) d));
  had := array(select r.id from record r where r.id = any (p_id) and r.at >= since and r.at < until);
  if p_odd <> '{}' then
    had := had || array(select r.id from record r where r.id = any (p_odd));
  end if;
  with batch as materialized (
    select distinct on (b.id) * from rows from (json_to_recordset(p_batch) as (
      at double precision, id text, usr text, jti text, account text, model text, outcome text, status int, tok bigint, cost bigint,
      body text, provider text, session text, minute int, hour int, day int, s_usr text, s_account text, s_model text,
      program text, key text, project text, conversation text, sums text)) with ordinality as b (
      at, id, usr, jti, account, model, outcome, status, tok, cost, body, provider, session, minute, hour, day, s_usr, s_account,
      s_model, program, key, project, conversation, sums, i)
    where b.id <> all (had) order by b.id, b.i),
  kept as (
    insert into record (at, id, node, seq, usr, jti, account, model, outcome, status, tok, cost, body, provider, session)
      select to_timestamp(at), id, p_node, p_to, usr, jti, account, model, outcome, status, tok, cost, decode(body, 'base64'),
        provider, session
      from batch on conflict (id, at) do nothing returning record.id),
  added as (
    insert into delta
      select p_node, p_to, i, minute, hour, day, s_usr, s_account, s_model, program, key, project, conversation, decode(sums, 'base64')
      from batch join kept using (id) where sums is not null),
  told as (
    update node set shipped = p_to, oldest = least(oldest, (select to_timestamp(min(at)) from batch)) where id = p_node)
  select coalesce(array_agg(id), '{}') into fresh from kept;
  return fresh;
end $$;
