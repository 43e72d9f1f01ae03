-- An admission costs less, and brings the pins of its conversation with it.

-- As before; that no limit is in the way, which is so nearly always, is one expression.
create or replace function use_stop(u use, lim bigint[], p_now double precision, ends bigint[], out stop int, out retry double precision)
language plpgsql immutable as $$
declare
  total bigint;
  used bigint[];
  held bigint;
  free double precision;
begin
  stop := 0;
  if coalesce(u.held_n < lim[2], true)
    and coalesce(u.day_tok + u.held_tok < lim[4], true) and coalesce(u.week_tok + u.held_tok < lim[5], true)
    and coalesce(u.month_tok + u.held_tok < lim[6], true) and coalesce(u.day_cost + u.held_cost < lim[7], true)
    and coalesce(u.week_cost + u.held_cost < lim[8], true) and coalesce(u.month_cost + u.held_cost < lim[9], true)
    and (lim[1] is null or coalesce((select sum(x) from unnest(u.ring) x), 0) < lim[1])
    and (lim[3] is null or coalesce((select sum(x) from unnest(u.r5) x), 0) + u.held_tok < lim[3]) then
    return;
  end if;
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

-- `admit_2`, and what pins these keys have (`pin_read_1`), in one statement. It does in one body what others do by calls: a
-- call that is given a row costs more than what it does with it.
create function admit_3(
  p_node int, p_usr text, p_jti text, p_people bigint, p_tok bigint, p_cost bigint,
  p_lim bigint[], p_key_lim bigint[], p_marks bigint[], p_at double precision, p_pins bytea[],
  out verdict text, out stop int, out of_key bool, out retry double precision, out tok bigint, out cost bigint,
  out people_seq bigint, out at double precision, out made bigint, out pin_keys bytea[], out pin_bodies bytea[])
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  u use;
  k use;
  found_stop record;
  last double precision;
begin
  perform set_config('synchronous_commit', 'off', true);
  if p_pins is not null then
    select array_agg(p.k), array_agg(p.body) into pin_keys, pin_bodies from pin p where p.k = any (p_pins);
  end if;
  select f.seq into people_seq from feed f where f.name = 'people';
  at := coalesce(p_at, extract(epoch from clock_timestamp()));
  verdict := admit_who(p_node, p_usr, p_jti, p_people, at);
  if verdict is null and (at < p_marks[1] or at >= p_marks[4]) then
    verdict := 'clock';
  end if;
  if verdict is not null then
    return;
  end if;
  select * into u from use where usr = p_usr and jti = '' for no key update;
  if not found then
    u := use_row(p_usr, '');
  end if;
  if p_key_lim is not null then
    k := use_row(p_usr, p_jti);
  end if;
  at := coalesce(p_at, extract(epoch from clock_timestamp()));
  if at < p_marks[1] or at >= p_marks[4] then
    verdict := 'clock';
    return;
  end if;
  if u.sec <> floor(at) or u.r5_at <> floor(at / 300) or u.day <> p_marks[1] or u.week <> p_marks[2] or u.month <> p_marks[3] then
    u := use_advanced(u, at, p_marks[1], p_marks[2], p_marks[3]);
  end if;
  stop := 0;
  of_key := false;
  if p_lim is not null then
    found_stop := use_stop(u, p_lim, at, p_marks[4:6]);
    stop := found_stop.stop; retry := found_stop.retry;
  end if;
  if p_key_lim is not null then
    k := use_advanced(k, at, p_marks[1], p_marks[2], p_marks[3]);
    found_stop := use_stop(k, p_key_lim, at, p_marks[4:6]);
    last := case when stop = 0 then 0 else coalesce(retry, 'infinity') end;
    if found_stop.stop > 0 and coalesce(found_stop.retry, 'infinity') > last then
      stop := found_stop.stop; retry := found_stop.retry; of_key := true;
    end if;
  end if;
  if stop > 0 then
    verdict := 'stopped';
    return;
  end if;
  tok := trunc(p_tok * u.ratio);
  cost := round(p_cost * u.ratio);
  made := trunc(at * 1000000);
  update hold h set n = h.n + 1, tok = h.tok + admit_3.tok, cost = h.cost + admit_3.cost, last = greatest(h.last + 1, made)
    where h.usr = p_usr and h.jti = '' and h.node = p_node returning h.last into made;
  if not found then                               -- nobody else makes it: the counters are locked
    made := trunc(at * 1000000);
    insert into hold (usr, jti, node, n, tok, cost, last) values (p_usr, '', p_node, 1, tok, cost, made);
  end if;
  if u.ring = '{}' then
    u.ring := array[1];
  else
    u.ring[1] := u.ring[1] + 1;
  end if;
  update use set held_n = held_n + 1, held_tok = held_tok + admit_3.tok, held_cost = held_cost + admit_3.cost, sec = u.sec,
    ring = u.ring, r5_at = u.r5_at, r5 = u.r5, day = u.day, day_tok = u.day_tok, day_cost = u.day_cost,
    week = u.week, week_tok = u.week_tok, week_cost = u.week_cost,
    month = u.month, month_tok = u.month_tok, month_cost = u.month_cost
    where usr = p_usr and jti = '';
  if p_key_lim is not null then
    perform held_2(k, p_node, tok, cost, made);
  end if;
  verdict := 'ok';
end $$;
