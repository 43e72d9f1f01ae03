-- Counters go by the time at which they are locked. A call that took its time before it waited for the lock moved what
-- others had counted meanwhile back to that time, so that it left its minute early.
-- What a node lets in has a number, by which the node knows what a server that died has forgotten, requests a minute too.

-- The number of the node's newest request for this owner: microseconds of the database's time, each larger than the last.
alter table hold add column last bigint not null default 0;

-- Somebody's counters, locked, and made where there are none.
create function use_row(p_usr text, p_jti text) returns use language plpgsql as $$
declare u use;
begin
  select * into u from use where usr = p_usr and jti = p_jti for no key update;
  if not found then
    insert into use (usr, jti) values (p_usr, p_jti) on conflict do nothing;
    select * into strict u from use where usr = p_usr and jti = p_jti for no key update;
  end if;
  return u;
end $$;

-- Locked, and brought to `p_now`; null = the time that it is then, which `marks` must be around.
create or replace function use_locked(p_usr text, p_jti text, p_now double precision, marks bigint[]) returns use
language plpgsql as $$
declare
  u use := use_row(p_usr, p_jti);
  clock double precision := coalesce(p_now, extract(epoch from clock_timestamp()));
begin
  if p_now is null and (clock < marks[1] or clock >= marks[4]) then
    raise exception 'the clock' using errcode = 'PL004';
  end if;
  return use_advanced(u, clock, marks[1], marks[2], marks[3]);
end $$;

-- `admit_1` with the time under the lock, and the request's number `made`.
create function admit_2(
  p_node int, p_usr text, p_jti text, p_people bigint, p_tok bigint, p_cost bigint,
  p_lim bigint[], p_key_lim bigint[], p_marks bigint[], p_at double precision,
  out verdict text, out stop int, out of_key bool, out retry double precision, out tok bigint, out cost bigint,
  out people_seq bigint, out at double precision, out made bigint)
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  u use;
  k use;
  last double precision;
  found_stop int;
  found_retry double precision;
begin
  perform set_config('synchronous_commit', 'off', true);
  select f.seq into people_seq from feed f where f.name = 'people';
  at := coalesce(p_at, extract(epoch from clock_timestamp()));
  verdict := admit_who(p_node, p_usr, p_jti, p_people, at);
  if verdict is null and (at < p_marks[1] or at >= p_marks[4]) then
    verdict := 'clock';
  end if;
  if verdict is not null then
    return;
  end if;
  u := use_row(p_usr, '');
  if p_key_lim is not null then
    k := use_row(p_usr, p_jti);
  end if;
  at := coalesce(p_at, extract(epoch from clock_timestamp()));
  if at < p_marks[1] or at >= p_marks[4] then
    verdict := 'clock';
    return;
  end if;
  u := use_advanced(u, at, p_marks[1], p_marks[2], p_marks[3]);
  if p_lim is not null then
    select * into stop, retry from use_stop(u, p_lim, at, p_marks[4:6]);
  end if;
  stop := coalesce(stop, 0);
  of_key := false;
  if p_key_lim is not null then
    k := use_advanced(k, at, p_marks[1], p_marks[2], p_marks[3]);
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
  made := held_2(u, p_node, tok, cost, trunc(at * 1000000)::bigint);
  if p_key_lim is not null then
    perform held_2(k, p_node, tok, cost, made);
  end if;
  verdict := 'ok';
end $$;

-- One more is let in; returns its number, `p_made` or more. That of a key's row is the person's.
create function held_2(u use, p_node int, p_tok bigint, p_cost bigint, p_made bigint) returns bigint
language plpgsql as $$
declare made bigint;
begin
  u.ring := slots_added(u.ring, 1);
  u.held_n := u.held_n + 1; u.held_tok := u.held_tok + p_tok; u.held_cost := u.held_cost + p_cost;
  perform use_kept(u);
  update hold h set n = h.n + 1, tok = h.tok + p_tok, cost = h.cost + p_cost, last = greatest(h.last + 1, p_made)
    where h.usr = u.usr and h.jti = u.jti and h.node = p_node returning h.last into made;
  if not found then                               -- nobody else makes it: the counters are locked
    insert into hold (usr, jti, node, n, tok, cost, last) values (u.usr, u.jti, p_node, 1, p_tok, p_cost, p_made);
    made := p_made;
  end if;
  return made;
end $$;

create or replace function settle_1(
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
    perform settle_owner(p_node, p_at, p_marks, one.usr, one.jti, p_usr, p_jti, p_held_tok, p_held_cost, p_seen_tok,
      p_seen_cost, p_tok, p_cost, p_base);
  end loop;
  update node set settled = p_to, oldest = case when shipped <= p_to then null else oldest end where id = p_node;
  settled := p_to;
end $$;

-- A hold of nothing stays for a while: its number says what of the node's requests is counted.
create or replace function settle_owner(
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
      if h.n = 0 then                             -- with nothing under way nothing is held
        u.held_tok := u.held_tok - h.tok; u.held_cost := u.held_cost - h.cost;
        h.tok := 0; h.cost := 0; h.seen_tok := 0; h.seen_cost := 0;
      end if;
    else
      u := use_counted(u, greatest(0, p_tok[i] - p_seen_tok[i]), greatest(0, p_cost[i] - p_seen_cost[i]));
    end if;
    if p_base[i] > 0 and p_tok[i] > 0 then
      u.ratio := least(50, greatest(1, p_tok[i]::double precision / p_base[i], 1 + (u.ratio - 1) * 0.9::double precision));
    end if;
  end loop;
  perform use_kept(u);
  update hold set n = h.n, tok = h.tok, cost = h.cost, seen_tok = h.seen_tok, seen_cost = h.seen_cost
    where usr = o_usr and jti = o_jti and node = p_node;
end $$;

-- `hold_sync_1`, and the numbers of what the node let in last: those after the newest that is known here are counted in
-- their seconds.
create function hold_sync_2(
  p_node int, p_usr text[], p_jti text[], p_n bigint[], p_tok bigint[], p_cost bigint[], p_seen_tok bigint[],
  p_seen_cost bigint[], p_made_usr text[], p_made_jti text[], p_made bigint[], p_at double precision) returns void
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  one record;
  u use;
  h hold;
begin
  if exists (select from node where id = p_node and dead is not null) then
    raise exception 'the node is dead' using errcode = 'PL002';
  end if;
  for one in
    select usr, jti, max(n) as n, max(tok) as tok, max(cost) as cost, max(st) as st, max(sc) as sc,
        array_agg(made order by made) filter (where made is not null) as made from (
      select a.*, null::bigint as made
        from unnest(p_usr, p_jti, p_n, p_tok, p_cost, p_seen_tok, p_seen_cost) as a (usr, jti, n, tok, cost, st, sc)
      union all select usr, jti, 0, 0, 0, 0, 0, null from hold where node = p_node
      union all select m.usr, m.jti, 0, 0, 0, 0, 0, m.made from unnest(p_made_usr, p_made_jti, p_made) as m (usr, jti, made)) b
    group by 1, 2 order by 1, 2
  loop
    u := use_row(one.usr, one.jti);
    select * into h from hold where usr = one.usr and jti = one.jti and node = p_node for no key update;
    u.held_n := u.held_n + one.n - coalesce(h.n, 0);
    u.held_tok := u.held_tok + one.tok - coalesce(h.tok, 0);
    u.held_cost := u.held_cost + one.cost - coalesce(h.cost, 0);
    perform use_kept(use_requested(u, array(select m from unnest(one.made) m where m > coalesce(h.last, 0)), p_at));
    if one.n = 0 and one.made is null then
      delete from hold where usr = one.usr and jti = one.jti and node = p_node;
    else
      insert into hold values (one.usr, one.jti, p_node, one.n, one.tok, one.cost, one.st, one.sc,
          greatest(h.last, one.made[array_upper(one.made, 1)], 0))
        on conflict (usr, jti, node) do update set n = one.n, tok = one.tok, cost = one.cost, seen_tok = one.st,
          seen_cost = one.sc, last = excluded.last;
    end if;
  end loop;
end $$;

-- The counters with requests of these numbers; what is of later than now counts as of now.
create function use_requested(u use, p_made bigint[], p_at double precision) returns use language plpgsql as $$
declare
  now_s bigint := floor(coalesce(p_at, extract(epoch from clock_timestamp())));
  number bigint;
  i int;
begin
  if p_made = '{}' then
    return u;
  end if;
  u.ring := slots_moved(u.ring, u.sec, now_s);
  u.sec := now_s;
  foreach number in array p_made loop
    i := greatest(1, now_s - number / 1000000 + 1);
    continue when i > 61;
    if coalesce(array_length(u.ring, 1), 0) < i then
      u.ring := u.ring || array_fill(0::bigint, array[i - coalesce(array_length(u.ring, 1), 0)]);
    end if;
    u.ring[i] := u.ring[i] + 1;
  end loop;
  return u;
end $$;

-- Holds of nothing whose number no server can forget any more; those that somebody uses wait for the next time.
create function holds_forget_1(p_idle_s double precision, p_most int) returns bigint
language plpgsql security definer set search_path = pool, pg_temp as $$
declare gone bigint;
begin
  perform set_config('synchronous_commit', 'off', true);
  with idle as (
    select ctid from hold where n = 0 and last < (extract(epoch from clock_timestamp()) - p_idle_s) * 1000000
    limit p_most for update skip locked),
  dropped as (delete from hold where ctid = any (array(select ctid from idle)) returning 1)
  select count(*) into gone from dropped;
  return gone;
end $$;

create or replace function bury_1(p_node int, p_marks bigint[], p_at double precision, p_most int) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  one record;
  u use;
  h hold;
begin
  perform 1 from node where id = p_node and dead is not null;
  if not found then
    raise exception 'the node lives' using errcode = 'PL005';
  end if;
  delete from hold where node = p_node and n = 0;  -- of these nothing is counted: their counters stay as they are
  for one in select usr, jti from hold where node = p_node order by 1, 2 limit p_most loop
    u := use_locked(one.usr, one.jti, p_at, p_marks);
    delete from hold where usr = one.usr and jti = one.jti and node = p_node returning * into h;
    if found then
      u.held_n := u.held_n - h.n; u.held_tok := u.held_tok - h.tok; u.held_cost := u.held_cost - h.cost;
      perform use_kept(use_counted(u, h.seen_tok, h.seen_cost));
    end if;
  end loop;
  return not exists (select from hold where node = p_node);
end $$;

create or replace function use_raise_1(p_marks bigint[], p_at double precision, p_most int) returns bigint
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  one record;
  u use;
  clock double precision := coalesce(p_at, extract(epoch from clock_timestamp()));
begin
  for one in select o.usr, o.jti from owed o left join use v using (usr, jti)
      where coalesce(v.held_n, 0) = 0 order by 1, 2 limit p_most loop
    u := use_locked(one.usr, one.jti, p_at, p_marks);
    continue when u.held_n > 0;
    perform use_kept(use_raised(u, clock));
    delete from owed where usr = one.usr and jti = one.jti;
  end loop;
  return (select count(*) from owed);
end $$;

create or replace function use_begin_1(p_usr text, p_jti text, p_marks bigint[], p_at double precision) returns void
language plpgsql security definer set search_path = pool, pg_temp as $$
declare clock double precision := coalesce(p_at, extract(epoch from clock_timestamp()));
begin
  insert into use (usr, jti) values (p_usr, p_jti) on conflict do nothing;
  if found then
    perform use_kept(use_raised(use_locked(p_usr, p_jti, p_at, p_marks), clock));
  end if;
end $$;
