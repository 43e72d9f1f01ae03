-- Counters and holds of people and of keys with limits of their own (jti '' is the person). The rule is that of
-- users/limits/counters.py; a property test gives both the same histories. Costs are nano-dollars, times unix seconds.
-- Locks are taken in one order: `use` by (usr, jti), then `hold`.

create table use (
  usr text not null, jti text not null default '',
  held_n bigint not null default 0, held_tok bigint not null default 0, held_cost bigint not null default 0,
  sec bigint not null default 0, ring bigint[] not null default '{}',  -- requests by second, that of `sec` first: 61
  r5_at bigint not null default 0, r5 bigint[] not null default '{}',  -- tokens by 300 s, that of `r5_at` first: 61
  day bigint not null default 0, day_tok bigint not null default 0, day_cost bigint not null default 0,
  week bigint not null default 0, week_tok bigint not null default 0, week_cost bigint not null default 0,
  month bigint not null default 0, month_tok bigint not null default 0, month_cost bigint not null default 0,
  ratio double precision not null default 1,
  primary key (usr, jti)
) with (fillfactor = 50);

-- What one node's running requests hold, and what they have reported as used.
create table hold (
  usr text not null, jti text not null default '', node int not null,
  n bigint not null default 0, tok bigint not null default 0, cost bigint not null default 0,
  seen_tok bigint not null default 0, seen_cost bigint not null default 0,
  primary key (usr, jti, node)
) with (fillfactor = 50);
create index hold_node on hold (node);

-- Slots, newest first, moved from the slot `had` to the slot `now`. What was counted in the future, by a clock that went
-- back, counts as of now.
create function slots_moved(p_slots bigint[], p_had bigint, p_now bigint) returns bigint[]
language plpgsql immutable as $$
declare
  n bigint := p_now - p_had;
  len int := coalesce(array_length(p_slots, 1), 0);
begin
  if n = 0 or len = 0 then
    return p_slots;
  elsif n > 60 then
    return '{}';
  elsif n > 0 then
    return (array_fill(0::bigint, array[n::int]) || p_slots)[1:61];
  elsif -n >= len then
    return array[(select sum(x) from unnest(p_slots) x)];
  end if;
  return (select sum(x) from unnest(p_slots[1:1 - n::int]) x)::bigint || p_slots[2 - n::int:61];
end $$;

create function slots_added(p_slots bigint[], p_amount bigint) returns bigint[]
language plpgsql immutable as $$
begin
  if array_length(p_slots, 1) is null then
    return array[p_amount];
  end if;
  p_slots[1] := p_slots[1] + p_amount;
  return p_slots;
end $$;

-- When enough of the oldest slots have left for the sum to be under `most`; null = never. `life` from a slot's begin.
create function slots_free(p_slots bigint[], p_first bigint, p_width bigint, p_most bigint, p_life bigint)
returns double precision language plpgsql immutable as $$
declare
  total bigint := (select sum(x) from unnest(p_slots) x);
begin
  if p_most <= 0 then
    return null;
  end if;
  for i in reverse array_length(p_slots, 1)..1 loop
    total := total - p_slots[i];
    if total < p_most then
      return (p_first - i + 1) * p_width + p_life;
    end if;
  end loop;
  return null;
end $$;

-- The counters as of now: what has left its window is dropped.
create function use_advanced(u use, p_now double precision, p_day bigint, p_week bigint, p_month bigint) returns use
language plpgsql immutable as $$
declare
  s bigint := floor(p_now);
  r bigint := floor(p_now / 300);
begin
  if u.sec <> s then
    u.ring := slots_moved(u.ring, u.sec, s);
    u.sec := s;
  end if;
  if u.r5_at <> r then
    u.r5 := slots_moved(u.r5, u.r5_at, r);
    u.r5_at := r;
  end if;
  if p_day > u.day then
    u.day_tok := 0; u.day_cost := 0;
  end if;
  if p_week > u.week then
    u.week_tok := 0; u.week_cost := 0;
  end if;
  if p_month > u.month then
    u.month_tok := 0; u.month_cost := 0;
  end if;
  u.day := p_day; u.week := p_week; u.month := p_month;
  return u;
end $$;

-- The limit in the way (its place in `lim`, 0 = none) and when it frees (null = never). Of several the one that frees
-- last; one that never frees at once. `lim`: requests a minute, at once, tokens in 5 h, of day, week, month, costs of
-- day, week, month; `ends` of day, week, month.
create function use_stop(u use, lim bigint[], p_now double precision, ends bigint[], out stop int, out retry double precision)
language plpgsql immutable as $$
declare
  total bigint;
  used bigint[];
  held bigint;
  free double precision;
begin
  stop := 0;
  if lim[1] is not null then
    total := coalesce((select sum(x) from unnest(u.ring) x), 0);
    if total >= lim[1] then
      stop := 1; retry := slots_free(u.ring, u.sec, 1, lim[1], 61);
      if retry is null then return; end if;
    end if;
  end if;
  if lim[2] is not null and u.held_n >= lim[2] then
    free := case when lim[2] > 0 then p_now + 5 end;
    if stop = 0 or free is null or free > retry then
      stop := 2; retry := free;
      if retry is null then return; end if;
    end if;
  end if;
  if lim[3] is not null then
    total := coalesce((select sum(x) from unnest(u.r5) x), 0);
    if total >= lim[3] or total + u.held_tok >= lim[3] then
      free := case when total >= lim[3] then slots_free(u.r5, u.r5_at, 300, lim[3], 18300) else p_now + 5 end;
      if stop = 0 or free is null or free > retry then
        stop := 3; retry := free;
        if retry is null then return; end if;
      end if;
    end if;
  end if;
  if lim[4:9] = array[null, null, null, null, null, null]::bigint[] then
    return;
  end if;
  used := array[u.day_tok, u.week_tok, u.month_tok, u.day_cost, u.week_cost, u.month_cost];
  for i in 1..6 loop
    continue when lim[i + 3] is null;
    held := case when i <= 3 then u.held_tok else u.held_cost end;
    if used[i] + held >= lim[i + 3] then
      free := case when lim[i + 3] <= 0 then null when used[i] >= lim[i + 3] then ends[(i - 1) % 3 + 1] else p_now + 5 end;
      if stop = 0 or free is null or free > retry then
        stop := i + 3; retry := free;
        if retry is null then return; end if;
      end if;
    end if;
  end loop;
end $$;

-- Locks somebody's counters, which are made where there are none, and brings them to now.
create function use_locked(p_usr text, p_jti text, p_now double precision, marks bigint[]) returns use
language plpgsql as $$
declare u use;
begin
  select * into u from use where usr = p_usr and jti = p_jti for no key update;
  if not found then
    insert into use (usr, jti) values (p_usr, p_jti) on conflict do nothing;
    select * into strict u from use where usr = p_usr and jti = p_jti for no key update;
  end if;
  return use_advanced(u, p_now, marks[1], marks[2], marks[3]);
end $$;

-- In PL/pgSQL, which keeps its plans: a function in SQL is planned at each call from another function.
create function use_kept(u use) returns void language plpgsql as $$
begin
  update use set held_n = u.held_n, held_tok = u.held_tok, held_cost = u.held_cost, sec = u.sec, ring = u.ring,
    r5_at = u.r5_at, r5 = u.r5, day = u.day, day_tok = u.day_tok, day_cost = u.day_cost,
    week = u.week, week_tok = u.week_tok, week_cost = u.week_cost,
    month = u.month, month_tok = u.month_tok, month_cost = u.month_cost, ratio = u.ratio
  where usr = u.usr and jti = u.jti;
end $$;

create function use_counted(u use, p_tok bigint, p_cost bigint) returns use language plpgsql immutable as $$
begin
  if p_tok <> 0 then
    u.r5 := slots_added(u.r5, p_tok);
  end if;
  u.day_tok := u.day_tok + p_tok; u.week_tok := u.week_tok + p_tok; u.month_tok := u.month_tok + p_tok;
  u.day_cost := u.day_cost + p_cost; u.week_cost := u.week_cost + p_cost; u.month_cost := u.month_cost + p_cost;
  return u;
end $$;

-- Admission. `verdict`: ok; stopped (by limit `stop` of the person, or of the key where `of_key`); stale (the node does
-- not know yet what changed, up to people_seq); gone (person or key); dead (the node); clock (`p_marks`, begin and end of
-- day, week and month by the node's clock, are not around `at`, the database's time). The request holds `tok` and `cost`.
create function admit_1(
  p_node int, p_usr text, p_jti text, p_people bigint, p_tok bigint, p_cost bigint,
  p_lim bigint[], p_key_lim bigint[], p_marks bigint[], p_at double precision,
  out verdict text, out stop int, out of_key bool, out retry double precision, out tok bigint, out cost bigint,
  out people_seq bigint, out accounts_seq bigint, out at double precision)
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  u use;
  k use;
  last double precision;
  found_stop int;
  found_retry double precision;
begin
  perform set_config('synchronous_commit', 'off', true);
  select max(f.seq) filter (where f.name = 'people'), max(f.seq) filter (where f.name = 'accounts')
    into people_seq, accounts_seq from feed f;
  at := coalesce(p_at, extract(epoch from clock_timestamp()));
  verdict := admit_who(p_node, p_usr, p_jti, p_people, at);
  if verdict is null and (at < p_marks[1] or at >= p_marks[4]) then
    verdict := 'clock';
  end if;
  if verdict is not null then
    return;
  end if;
  u := use_locked(p_usr, '', at, p_marks);
  if p_lim is not null then
    select * into stop, retry from use_stop(u, p_lim, at, p_marks[4:6]);
  end if;
  stop := coalesce(stop, 0);
  of_key := false;
  if p_key_lim is not null then
    k := use_locked(p_usr, p_jti, at, p_marks);
    select * into found_stop, found_retry from use_stop(k, p_key_lim, at, p_marks[4:6]);
    last := case when stop = 0 then 0 else coalesce(retry, 'infinity') end;
    if found_stop > 0 and coalesce(found_retry, 'infinity') > last then
      stop := found_stop; retry := found_retry; of_key := true;
    end if;
  end if;
  if stop > 0 then
    verdict := 'stopped';
    return;
  end if;
  tok := trunc(p_tok * u.ratio);
  cost := round(p_cost * u.ratio);
  perform held(u, p_node, tok, cost);
  if p_key_lim is not null then
    perform held(k, p_node, tok, cost);
  end if;
  verdict := 'ok';
end $$;

-- Why somebody is not let in whatever the limits say; null where they are. The operator has no row.
create function admit_who(p_node int, p_usr text, p_jti text, p_people bigint, p_at double precision) returns text
language plpgsql stable as $$
declare
  p record;
  k record;
begin
  if exists (select from node where id = p_node and dead is not null) then
    return 'dead';
  end if;
  select seq, barred into p from person where id = p_usr;
  if found then
    if p.seq > p_people then return 'stale'; end if;
    if p.barred then return 'gone'; end if;
  end if;
  if p_jti <> '' then
    select seq, expires, body is null as ended into k from key where jti = p_jti;
    if found then
      if k.seq > p_people then return 'stale'; end if;
      if k.ended or k.expires <= p_at then return 'gone'; end if;
    end if;
  end if;
  return null;
end $$;

create function held(u use, p_node int, p_tok bigint, p_cost bigint) returns void language plpgsql as $$
begin
  u.ring := slots_added(u.ring, 1);
  u.held_n := u.held_n + 1; u.held_tok := u.held_tok + p_tok; u.held_cost := u.held_cost + p_cost;
  perform use_kept(u);
  insert into hold as h (usr, jti, node, n, tok, cost) values (u.usr, u.jti, p_node, 1, p_tok, p_cost)
    on conflict (usr, jti, node) do update set n = h.n + 1, tok = h.tok + p_tok, cost = h.cost + p_cost;
end $$;

-- Ends of requests, in their order: what each held and had reported, what it used, and what was asked for before the
-- ratio (`p_base`, 0 = nothing is learnt). Counted once: `p_from` must be the number this node settled last, and `p_to`
-- is kept with it. A hold that is not there was counted as dead at what it had reported.
create function settle_1(
  p_node int, p_from bigint, p_to bigint, p_marks bigint[], p_at double precision,
  p_usr text[], p_jti text[], p_held_tok bigint[], p_held_cost bigint[], p_seen_tok bigint[], p_seen_cost bigint[],
  p_tok bigint[], p_cost bigint[], p_base bigint[], out settled bigint, out clock double precision)
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  n record;
  one record;
begin
  perform set_config('synchronous_commit', 'off', true);
  clock := coalesce(p_at, extract(epoch from clock_timestamp()));
  select node.settled, node.dead into n from node where id = p_node for no key update;
  if n.dead is not null then
    raise exception 'the node is dead' using errcode = 'PL002';
  end if;
  settled := n.settled;
  if settled >= p_to and p_to > p_from then
    return;                                       -- said again, after an answer that was lost
  elsif settled <> p_from then
    raise exception 'settled %, not %', settled, p_from using errcode = 'PL003';
  elsif clock < p_marks[1] or clock >= p_marks[4] then
    raise exception 'the clock' using errcode = 'PL004';
  end if;
  for one in select distinct a.usr, a.jti from unnest(p_usr, p_jti) as a (usr, jti) order by 1, 2 loop
    perform settle_owner(p_node, clock, p_marks, one.usr, one.jti, p_usr, p_jti, p_held_tok, p_held_cost, p_seen_tok,
      p_seen_cost, p_tok, p_cost, p_base);
  end loop;
  update node set settled = p_to, oldest = case when shipped <= p_to then null else oldest end where id = p_node;
  settled := p_to;
end $$;

create function settle_owner(
  p_node int, p_at double precision, p_marks bigint[], o_usr text, o_jti text,
  p_usr text[], p_jti text[], p_held_tok bigint[], p_held_cost bigint[], p_seen_tok bigint[], p_seen_cost bigint[],
  p_tok bigint[], p_cost bigint[], p_base bigint[]) returns void
language plpgsql as $$
declare
  u use := use_locked(o_usr, o_jti, p_at, p_marks);
  h hold;
begin
  select * into h from hold where usr = o_usr and jti = o_jti and node = p_node for no key update;
  for i in 1..array_length(p_usr, 1) loop
    continue when p_usr[i] <> o_usr or p_jti[i] <> o_jti;
    if p_held_tok[i] is null then                 -- it held nothing here
      u := use_counted(u, p_tok[i], p_cost[i]);
    elsif coalesce(h.n, 0) > 0 then
      h.n := h.n - 1; h.tok := h.tok - p_held_tok[i]; h.cost := h.cost - p_held_cost[i];
      h.seen_tok := h.seen_tok - p_seen_tok[i]; h.seen_cost := h.seen_cost - p_seen_cost[i];
      u.held_n := u.held_n - 1; u.held_tok := u.held_tok - p_held_tok[i]; u.held_cost := u.held_cost - p_held_cost[i];
      u := use_counted(u, p_tok[i], p_cost[i]);
    else
      u := use_counted(u, greatest(0, p_tok[i] - p_seen_tok[i]), greatest(0, p_cost[i] - p_seen_cost[i]));
    end if;
    if p_base[i] > 0 and p_tok[i] > 0 then
      u.ratio := least(50, greatest(1, p_tok[i]::double precision / p_base[i], 1 + (u.ratio - 1) * 0.9::double precision));
    end if;
  end loop;
  if h.n = 0 then                                 -- with nothing under way nothing is held
    u.held_tok := u.held_tok - h.tok; u.held_cost := u.held_cost - h.cost;
  end if;
  perform use_kept(u);
  if h.n = 0 then
    delete from hold where usr = o_usr and jti = o_jti and node = p_node;
  elsif h.n > 0 then
    update hold set n = h.n, tok = h.tok, cost = h.cost, seen_tok = h.seen_tok, seen_cost = h.seen_cost
      where usr = o_usr and jti = o_jti and node = p_node;
  end if;
end $$;

-- A node's beat: it lives, and its running requests need more (`tok`, `cost`) and have reported more (`seen_…`). False
-- when the node was taken for dead.
create function beat_1(
  p_node int, p_usr text[], p_jti text[], p_tok bigint[], p_cost bigint[], p_seen_tok bigint[], p_seen_cost bigint[])
returns bool language plpgsql security definer set search_path = pool, pg_temp as $$
declare one record;
begin
  perform set_config('synchronous_commit', 'off', true);
  update node set beat = clock_timestamp() where id = p_node and dead is null;
  if not found then
    return false;
  end if;
  for one in
    select a.usr, a.jti, sum(a.tok)::bigint as tok, sum(a.cost)::bigint as cost, sum(a.st)::bigint as st, sum(a.sc)::bigint as sc
    from unnest(p_usr, p_jti, p_tok, p_cost, p_seen_tok, p_seen_cost) as a (usr, jti, tok, cost, st, sc)
    group by 1, 2 order by 1, 2
  loop
    perform 1 from use where usr = one.usr and jti = one.jti for no key update;
    update hold set tok = tok + one.tok, cost = cost + one.cost, seen_tok = seen_tok + one.st, seen_cost = seen_cost + one.sc
      where usr = one.usr and jti = one.jti and node = p_node;
    if found and (one.tok <> 0 or one.cost <> 0) then
      update use set held_tok = held_tok + one.tok, held_cost = held_cost + one.cost where usr = one.usr and jti = one.jti;
    end if;
  end loop;
  return true;
end $$;

-- Replaces what the database thinks a node holds by what it does hold: after a lost connection, or a failover that forgot
-- a moment of admissions. Its owners are locked first, in their order.
create function hold_sync_1(
  p_node int, p_usr text[], p_jti text[], p_n bigint[], p_tok bigint[], p_cost bigint[], p_seen_tok bigint[],
  p_seen_cost bigint[]) returns void
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  one record;
  h hold;
begin
  if exists (select from node where id = p_node and dead is not null) then
    raise exception 'the node is dead' using errcode = 'PL002';
  end if;
  for one in
    select usr, jti, max(n) as n, max(tok) as tok, max(cost) as cost, max(st) as st, max(sc) as sc from (
      select * from unnest(p_usr, p_jti, p_n, p_tok, p_cost, p_seen_tok, p_seen_cost) as a (usr, jti, n, tok, cost, st, sc)
      union all select usr, jti, 0, 0, 0, 0, 0 from hold where node = p_node) b
    group by 1, 2 order by 1, 2
  loop
    insert into use (usr, jti) values (one.usr, one.jti) on conflict do nothing;
    perform 1 from use where usr = one.usr and jti = one.jti for no key update;
    select * into h from hold where usr = one.usr and jti = one.jti and node = p_node for no key update;
    update use set held_n = held_n + one.n - coalesce(h.n, 0), held_tok = held_tok + one.tok - coalesce(h.tok, 0),
      held_cost = held_cost + one.cost - coalesce(h.cost, 0) where usr = one.usr and jti = one.jti;
    if one.n = 0 then
      delete from hold where usr = one.usr and jti = one.jti and node = p_node;
    else
      insert into hold values (one.usr, one.jti, p_node, one.n, one.tok, one.cost, one.st, one.sc)
        on conflict (usr, jti, node) do update set n = one.n, tok = one.tok, cost = one.cost, seen_tok = one.st,
          seen_cost = one.sc;
    end if;
  end loop;
end $$;

-- A dead node's requests: what each had reported is what it used. True when nothing of it is left.
create function bury_1(p_node int, p_marks bigint[], p_at double precision, p_most int) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  one record;
  u use;
  h hold;
  clock double precision := coalesce(p_at, extract(epoch from clock_timestamp()));
begin
  perform 1 from node where id = p_node and dead is not null;
  if not found then
    raise exception 'the node lives' using errcode = 'PL005';
  end if;
  for one in select usr, jti from hold where node = p_node order by 1, 2 limit p_most loop
    u := use_locked(one.usr, one.jti, clock, p_marks);
    delete from hold where usr = one.usr and jti = one.jti and node = p_node returning * into h;
    if found then
      u.held_n := u.held_n - h.n; u.held_tok := u.held_tok - h.tok; u.held_cost := u.held_cost - h.cost;
      perform use_kept(use_counted(u, h.seen_tok, h.seen_cost));
    end if;
  end loop;
  return not exists (select from hold where node = p_node);
end $$;

-- Takes nodes for dead that were silent for so long; returns all dead ones that still hold something.
create function nodes_dead_1(p_silent_s double precision) returns setof int
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  update node set dead = 'silent' where dead is null and beat < clock_timestamp() - make_interval(secs => p_silent_s);
  return query select n.id from node n where n.dead is not null and exists (select from hold h where h.node = n.id);
end $$;

create function standing_1(p_usr text, p_jti text, p_marks bigint[], p_at double precision) returns use
language sql stable security definer set search_path = pool, pg_temp as $$
  select use_advanced(u, coalesce(p_at, extract(epoch from clock_timestamp())), p_marks[1], p_marks[2], p_marks[3])
  from use u where usr = p_usr and jti = p_jti
$$;

grant select on use, hold to pool_app;
