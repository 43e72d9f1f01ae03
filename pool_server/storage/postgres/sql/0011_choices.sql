-- What people decide for themselves, by kind (null: taken back), and secrets that all nodes have: sealed by the nodes, so
-- that no key to open them is here. Both are numbered with the changes of people.

create table choice (
  usr text not null, kind text not null check (kind in ('consent', 'notice')), seq bigint not null, body bytea,
  primary key (usr, kind)
);
create index choice_seq on choice (seq);

create table secret (name text primary key, seq bigint not null, body bytea not null);

-- Where not `p_anew`, one that stands stays as it is.
create function choice_put_1(p_seq bigint, p_usr text, p_kind text, p_body bytea, p_anew bool) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into choice as c values (p_usr, p_kind, p_seq, p_body)
    on conflict (usr, kind) do update set seq = p_seq, body = p_body where p_anew or c.body is null
$$;

-- The first who says one has said it for all.
create function secret_make_1(p_name text, p_body bytea) returns bytea
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  if not exists (select from secret where name = p_name) then
    insert into secret values (p_name, feed_raise('people'), p_body) on conflict do nothing;
  end if;
  return (select body from secret where name = p_name);
end $$;

-- False when somebody has changed it since.
create function secret_put_1(p_seq bigint, p_name text, p_had bytea, p_body bytea) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  update secret set seq = p_seq, body = p_body where name = p_name and body = p_had;
  return found;
end $$;

create function people_news_2(p_since bigint) returns table (upto bigint, kind text, id text, usr text, body bytea)
language sql stable security definer set search_path = pool, pg_temp as $$
  select * from people_news_1(p_since)
  union all select c.seq, 'choice', c.kind, c.usr, c.body from choice c where c.seq > p_since
  union all select s.seq, 'secret', s.name, null, s.body from secret s where s.seq > p_since
$$;

grant select on choice to pool_app;
