-- What makes counters whole again after a death, and tells a node whether what it commits is safe.

-- Whose counters may lack what somebody dead had used: raised to what the records say once nothing is held.
create table owed (usr text not null, jti text not null default '', primary key (usr, jti));

-- One row a node, written with a synchronous commit: while that hangs, what this server counts may be worth nothing.
create table proof (node int primary key, at timestamptz not null);

create function node_prove_1(p_node int) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into proof values (p_node, clock_timestamp()) on conflict (node) do update set at = clock_timestamp()
$$;

create function use_owe_1(p_usr text[], p_jti text[]) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into owed select distinct a.usr, a.jti from unnest(p_usr, p_jti) as a (usr, jti) order by 1, 2
    on conflict do nothing
$$;

-- The counters with what the records know beyond them, as `raise_to` of users/limits/counters.py has it.
create function use_raised(u use, p_at double precision) returns use language plpgsql as $$
declare
  s record;
  r5_from double precision := (floor(p_at / 300) - 60) * 300;
begin
  select coalesce(sum(r.tok) filter (where r.at >= to_timestamp(r5_from)), 0)::bigint as r5,
      coalesce(sum(r.tok) filter (where r.at >= to_timestamp(u.day)), 0)::bigint as day_tok,
      coalesce(sum(r.cost) filter (where r.at >= to_timestamp(u.day)), 0)::bigint as day_cost,
      coalesce(sum(r.tok) filter (where r.at >= to_timestamp(u.week)), 0)::bigint as week_tok,
      coalesce(sum(r.cost) filter (where r.at >= to_timestamp(u.week)), 0)::bigint as week_cost,
      coalesce(sum(r.tok) filter (where r.at >= to_timestamp(u.month)), 0)::bigint as month_tok,
      coalesce(sum(r.cost) filter (where r.at >= to_timestamp(u.month)), 0)::bigint as month_cost
    into s from record r
    where r.usr = u.usr and (u.jti = '' or r.jti = u.jti) and r.at >= to_timestamp(least(r5_from, u.week, u.month));
  s.r5 := s.r5 - coalesce((select sum(x) from unnest(u.r5) x), 0);
  if s.r5 > 0 then
    u.r5 := slots_added(u.r5, s.r5);
  end if;
  u.day_tok := greatest(u.day_tok, s.day_tok); u.day_cost := greatest(u.day_cost, s.day_cost);
  u.week_tok := greatest(u.week_tok, s.week_tok); u.week_cost := greatest(u.week_cost, s.week_cost);
  u.month_tok := greatest(u.month_tok, s.month_tok); u.month_cost := greatest(u.month_cost, s.month_cost);
  return u;
end $$;

-- Counters that are not there yet begin with what the records know: of a key that is given limits of its own late.
create function use_begin_1(p_usr text, p_jti text, p_marks bigint[], p_at double precision) returns void
language plpgsql security definer set search_path = pool, pg_temp as $$
declare clock double precision := coalesce(p_at, extract(epoch from clock_timestamp()));
begin
  insert into use (usr, jti) values (p_usr, p_jti) on conflict do nothing;
  if found then
    perform use_kept(use_raised(use_locked(p_usr, p_jti, clock, p_marks), clock));
  end if;
end $$;

-- Raises counters that are owed something and of which nothing is held; returns how many are still owed.
create function use_raise_1(p_marks bigint[], p_at double precision, p_most int) returns bigint
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  one record;
  u use;
  clock double precision := coalesce(p_at, extract(epoch from clock_timestamp()));
begin
  for one in select o.usr, o.jti from owed o left join use v using (usr, jti)
      where coalesce(v.held_n, 0) = 0 order by 1, 2 limit p_most loop
    u := use_locked(one.usr, one.jti, clock, p_marks);
    continue when u.held_n > 0;
    perform use_kept(use_raised(u, clock));
    delete from owed where usr = one.usr and jti = one.jti;
  end loop;
  return (select count(*) from owed);
end $$;

-- A dead node's requests, as `bury_1`; the records say what they used beyond what they had reported.
create function bury_2(p_node int, p_marks bigint[], p_at double precision, p_most int) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  insert into owed select usr, jti from hold where node = p_node order by 1, 2 on conflict do nothing;
  delete from proof where node = p_node;
  return bury_1(p_node, p_marks, p_at, p_most);
end $$;
