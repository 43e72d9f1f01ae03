-- Which account a conversation, or a thing that one account alone can serve, belongs to, and what is known of a
-- conversation's cache. Keys are hashes; `until` (unix seconds) is when a row is of no use any more. A row that is lost
-- costs a cache or a conversation's next turn, so that nobody waits for the standby here.

create table pin (k bytea primary key check (length(k) < 100), body bytea not null, until double precision not null)
  with (fillfactor = 70);
create index pin_until on pin (until);

create function pin_read_1(p_k bytea[]) returns table (k bytea, body bytea)
language sql stable security definer set search_path = pool, pg_temp as $$
  select p.k, p.body from pin p where p.k = any (p_k)
$$;

-- The last one who writes counts. In the order of keys, so that nobody waits for somebody who waits for them.
create function pin_put_1(p_k bytea[], p_body bytea[], p_until double precision[]) returns void
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  insert into pin as p select x.k, x.body, x.until from unnest(p_k, p_body, p_until) as x (k, body, until) order by x.k
    on conflict (k) do update set body = excluded.body, until = excluded.until;
end $$;

-- Drops some whose time is over; returns how many went.
create function pin_sweep_1(p_most int) returns bigint
language sql security definer set search_path = pool, pg_temp as $$
  with gone as (
    delete from pin where k in (
      select k from pin where until < extract(epoch from clock_timestamp()) order by until limit p_most
      for update skip locked)
    returning 1)
  select count(*) from gone
$$;
