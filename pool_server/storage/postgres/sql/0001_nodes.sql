-- Nodes, the numbers of changes that they follow, and leases. Times are the database's own.

create table feed (name text primary key, seq bigint not null default 0);
insert into feed (name) values ('people'), ('accounts'), ('credentials');

-- A worker process is a node: a new id each time. `dead` says how it ended: goodbye, succeeded, silent.
create table node (
  id int generated always as identity primary key,
  name text not null check (length(name) between 1 and 200),
  program text not null,
  settings jsonb not null default '{}',           -- section -> digest
  started timestamptz not null default clock_timestamp(),
  beat timestamptz not null default clock_timestamp(),
  shipped bigint not null default 0,              -- number of the last record of its journal that is here
  settled bigint not null default 0,              -- ... that is counted
  oldest timestamptz,                             -- of what is here and not counted
  dead text check (dead in ('goodbye', 'succeeded', 'silent'))
);
create unique index node_living on node (name) where dead is null;

-- `given`: it was given back, not abandoned.
create table lease (
  name text primary key check (length(name) between 1 and 400),
  holder int not null,
  term bigint not null,
  until timestamptz not null,
  given bool not null default false
);

-- Numbers a change. The row's lock makes numbers commit in their order, so that "all after n" never misses one.
create function feed_raise(p_name text) returns bigint language plpgsql as $$
declare n bigint;
begin
  update feed set seq = seq + 1 where name = p_name returning seq into strict n;
  perform pg_notify('pool', p_name);
  return n;
end $$;

create function feed_look_1() returns table (name text, seq bigint)
language sql stable security definer set search_path = pool, pg_temp as $$
  select f.name, f.seq from feed f
$$;

-- A new life under a name. One that lived under it before is succeeded; `displaced` if it was heard of in the last two
-- seconds and had not said goodbye: perhaps two machines have one name.
create function node_start_1(p_name text, p_program text, p_settings jsonb, out id int, out displaced bool)
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('node ' || p_name, 0));
  update node n set dead = 'succeeded' where n.name = p_name and n.dead is null
    returning n.beat > clock_timestamp() - interval '2 s' into displaced;
  displaced := coalesce(displaced, false);
  insert into node (name, program, settings) values (p_name, p_program, p_settings) returning node.id into id;
end $$;

create function node_end_1(p_node int) returns void
language sql security definer set search_path = pool, pg_temp as $$
  update node set dead = 'goodbye', beat = clock_timestamp() where id = p_node and dead is null
$$;

-- The term, once the lease before it has run out or was given back; null while somebody holds it. `abandoned`: it ran out.
create function lease_take_1(p_name text, p_holder int, p_seconds double precision, out term bigint, out abandoned bool)
language plpgsql security definer set search_path = pool, pg_temp as $$
declare had lease;
begin
  insert into lease values (p_name, p_holder, 1, clock_timestamp() + make_interval(secs => p_seconds))
    on conflict (name) do nothing returning lease.term into term;
  if found then
    abandoned := false;
    return;
  end if;
  select * into had from lease l where l.name = p_name for update;
  if had.until > clock_timestamp() then
    return;
  end if;
  update lease l set holder = p_holder, term = l.term + 1, given = false,
      until = clock_timestamp() + make_interval(secs => p_seconds)
    where l.name = p_name returning l.term into term;
  abandoned := not had.given;
end $$;

-- Longer, as long as nobody else has taken it.
create function lease_renew_1(p_name text, p_term bigint, p_seconds double precision) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  update lease set until = clock_timestamp() + make_interval(secs => p_seconds)
    where name = p_name and term = p_term and not given;
  return found;
end $$;

create function lease_give_1(p_name text, p_term bigint) returns void
language sql security definer set search_path = pool, pg_temp as $$
  update lease set until = clock_timestamp(), given = true where name = p_name and term = p_term
$$;

-- A writer under a lease asks within its own transaction: raises when another has the lease by now.
create function lease_fence(p_name text, p_term bigint) returns void language plpgsql as $$
begin
  perform 1 from lease where name = p_name and term = p_term and not given for share;
  if not found then
    raise exception 'the lease has another term' using errcode = 'PL001';
  end if;
end $$;

grant select on feed, node, lease to pool_app, pool_read;
