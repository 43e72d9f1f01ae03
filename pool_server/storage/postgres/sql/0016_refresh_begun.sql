-- Refresh tokens that were shown to their provider and of which nobody has heard yet what came: the node that showed one
-- may have the new token, and be cut off for longer than any lease lasts. `grant_key` is a hash.
create table refresh_begun (
  grant_key text primary key check (length(grant_key) between 1 and 200),
  node int not null,
  at timestamptz not null default clock_timestamp()
);

-- A worker of a machine, whose life has another name where it was taken for dead.
create function worker_name(p_name text) returns text language sql immutable as $$
  select regexp_replace(p_name, '~[0-9]+$', '')
$$;

-- Whether the node may show it: nobody else has begun to, nor an earlier life of the same worker; within `p_kept_s`,
-- after which who has not come back has lost its disk.
create function refresh_begin_1(p_grant_key text, p_node int, p_kept_s double precision) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  insert into refresh_begun as b values (p_grant_key, p_node) on conflict (grant_key) do update
    set node = p_node, at = clock_timestamp()
    where b.node = p_node or b.at < clock_timestamp() - make_interval(secs => p_kept_s)
      or exists (select from node h, node m
        where h.id = b.node and m.id = p_node and worker_name(h.name) = worker_name(m.name));
  return found;
end $$;

-- What came of it is known to all, or nothing came.
create function refresh_end_1(p_grant_key text) returns void
language sql security definer set search_path = pool, pg_temp as $$
  delete from refresh_begun where grant_key = p_grant_key
$$;

-- What dead lives of this worker, or workers of its machine that said goodbye, have begun is over, but for `p_but`, of
-- which the new token is on this machine's disk; so is what was begun before `p_kept_s`.
create function refresh_inherit_1(p_node int, p_but text[], p_kept_s double precision) returns void
language sql security definer set search_path = pool, pg_temp as $$
  delete from refresh_begun b where b.at < clock_timestamp() - make_interval(secs => p_kept_s)
    or (b.grant_key <> all (p_but) and exists (select from node h, node m
      where h.id = b.node and m.id = p_node and h.id <> m.id and h.dead is not null
        and (worker_name(h.name) = worker_name(m.name)
          or (h.dead = 'goodbye' and regexp_replace(h.name, '/[^/]*$', '') = regexp_replace(m.name, '/[^/]*$', '')))))
$$;
