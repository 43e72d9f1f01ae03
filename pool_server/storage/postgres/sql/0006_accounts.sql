-- What nodes know of accounts together: what was learnt, small notes, requests under way, tokens that were traded.

create table account_live (
  account text primary key check (length(account) between 1 and 400),
  version bigint not null,
  seq bigint not null,
  body bytea not null
) with (fillfactor = 70);
create index account_live_seq on account_live (seq);

create table account_note (name text primary key check (length(name) between 1 and 500), seq bigint not null, body bytea);
create index account_note_seq on account_note (seq);

create table account_flight (node int not null, account text not null, n int not null, primary key (node, account));

create table spent (mark text primary key, account text not null, at double precision not null);

-- The feed's row is locked first, by all, so that nobody waits for somebody who waits for them. A body is taken when nobody
-- has written since the version it was made from (0 = none is there); else the newer one is returned.
create function live_put_1(p_account text[], p_from bigint[], p_body bytea[])
returns table (account text, version bigint, put bool, body bytea)
language plpgsql security definer set search_path = pool, pg_temp as $$
declare n bigint := feed_raise('accounts');
begin
  for i in 1..cardinality(p_account) loop
    account := p_account[i]; version := null; body := null;
    if p_from[i] = 0 then
      insert into account_live as l values (p_account[i], 1, n, p_body[i])
        on conflict on constraint account_live_pkey do nothing returning l.version into version;
    else
      update account_live l set version = l.version + 1, seq = n, body = p_body[i]
        where l.account = p_account[i] and l.version = p_from[i] returning l.version into version;
    end if;
    put := version is not null;
    if not put then
      select l.version, l.body into version, body from account_live l where l.account = p_account[i];
    end if;
    return next;
  end loop;
end $$;

-- The last one who writes a note counts; null takes it away.
create function account_notes_put_1(p_name text[], p_body bytea[]) returns bigint
language plpgsql security definer set search_path = pool, pg_temp as $$
declare n bigint := feed_raise('accounts');
begin
  insert into account_note as a select x.name, n, x.body from unnest(p_name, p_body) as x (name, body)
    on conflict (name) do update set seq = n, body = excluded.body;
  return n;
end $$;

create function accounts_news_1(p_since bigint)
returns table (upto bigint, kind text, name text, version bigint, body bytea)
language sql stable security definer set search_path = pool, pg_temp as $$
  select f.seq, 'feed', null::text, null::bigint, null::bytea from feed f where f.name = 'accounts'
  union all select l.seq, 'live', l.account, l.version, l.body from account_live l where l.seq > p_since
  union all select a.seq, 'note', a.name, null, a.body from account_note a where a.seq > p_since
$$;

-- A node says what it has under way, and hears what the other living ones have.
create function flight_1(p_node int, p_account text[], p_n int[], p_silent_s double precision)
returns table (account text, n bigint)
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  delete from account_flight f where f.node = p_node and f.account <> all (p_account);
  insert into account_flight as f select p_node, x.account, x.n from unnest(p_account, p_n) as x (account, n)
    where exists (select from node where id = p_node and dead is null)
    on conflict on constraint account_flight_pkey do update set n = excluded.n where f.n <> excluded.n;
  return query select f.account, sum(f.n)::bigint from account_flight f join node on node.id = f.node
    where f.node <> p_node and node.dead is null and node.beat > clock_timestamp() - make_interval(secs => p_silent_s)
    group by f.account;
end $$;

-- What dead nodes had under way.
create function flight_sweep_1() returns void
language sql security definer set search_path = pool, pg_temp as $$
  delete from account_flight f using node where node.id = f.node and node.dead is not null
$$;

create function spent_put_1(p_mark text, p_account text, p_at double precision) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into spent values (p_mark, p_account, p_at) on conflict (mark) do update set account = p_account, at = p_at
$$;

create function spent_read_1(p_mark text[]) returns setof spent
language sql stable security definer set search_path = pool, pg_temp as $$
  select * from spent where mark = any (p_mark)
$$;

create function spent_sweep_1(p_before double precision) returns void
language sql security definer set search_path = pool, pg_temp as $$
  delete from spent where at < p_before
$$;

grant select on account_live, account_note, account_flight, spent to pool_app;
