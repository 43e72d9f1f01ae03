-- People with their keys, codes and the operator's tokens, the audit log, and what the door keeps for a while. A body is
-- the record as the rooms encode it; columns beside it are what is decided here. Ended things stay as tombstones (no
-- body), so that a node that was away learns of their end by the same question as of everything else.

create table person (
  id text primary key,
  mark text unique,                               -- skeleton of the name; null once deleted
  seq bigint not null,
  barred bool not null,                           -- disabled or deleted
  body bytea not null
);
create index person_seq on person (seq);
create table key (
  jti text primary key,
  usr text not null references person,
  seq bigint not null,
  expires double precision,                       -- unix seconds
  body bytea                                      -- null: revoked
);
create index key_seq on key (seq);
create index key_usr on key (usr);
create table code (prefix text primary key, seq bigint not null, body bytea);
create index code_seq on code (seq);
create table admin_token (id text primary key, seq bigint not null, body bytea);
create index admin_token_seq on admin_token (seq);
create table identity (mark bytea primary key, usr text not null);
create table note (name text primary key, body bytea not null);
create table audit (
  seq bigint generated always as identity primary key,
  actor text not null, actor_id text not null, actor_name text not null, action text not null, target text not null,
  body bytea not null
);
create table throttle (mark bytea primary key, body bytea not null);
create table session (mark bytea primary key, expires double precision not null, body bytea not null);
create table ticket (mark bytea primary key, expires double precision not null, body bytea not null);
create table once (mark bytea primary key, until double precision not null);

-- Begins each change: its number, whose row's lock also lets changes of people happen one after the other, so that none
-- of them can wait for another that waits for it.
create function people_begin_1() returns bigint
language sql security definer set search_path = pool, pg_temp as $$
  select feed_raise('people')
$$;

create function person_read_1(p_id text) returns table (jti text, body bytea)
language sql stable security definer set search_path = pool, pg_temp as $$
  select null::text, p.body from person p where p.id = p_id
  union all
  select k.jti, k.body from key k where k.usr = p_id and k.body is not null
$$;

create function person_put_1(p_seq bigint, p_id text, p_mark text, p_barred bool, p_body bytea) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into person values (p_id, p_mark, p_seq, p_barred, p_body)
    on conflict (id) do update set mark = p_mark, seq = p_seq, barred = p_barred, body = p_body
$$;

create function key_put_1(p_seq bigint, p_jti text, p_usr text, p_expires double precision, p_body bytea) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into key values (p_jti, p_usr, p_seq, p_expires, p_body)
    on conflict (jti) do update set seq = p_seq, expires = p_expires, body = p_body
$$;

create function code_read_1(p_prefix text) returns bytea
language sql stable security definer set search_path = pool, pg_temp as $$
  select body from code where prefix = p_prefix
$$;

create function code_put_1(p_seq bigint, p_prefix text, p_body bytea) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into code values (p_prefix, p_seq, p_body) on conflict (prefix) do update set seq = p_seq, body = p_body
$$;

create function token_count_1() returns bigint
language sql stable security definer set search_path = pool, pg_temp as $$
  select count(*) from admin_token where body is not null
$$;

create function token_put_1(p_seq bigint, p_id text, p_body bytea) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  if p_body is null then
    update admin_token set seq = p_seq, body = null where id = p_id and body is not null;
    return found;
  end if;
  insert into admin_token values (p_id, p_seq, p_body);
  return true;
end $$;

create function identity_put_1(p_mark bytea, p_usr text) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into identity values (p_mark, p_usr) on conflict (mark) do update set usr = p_usr
$$;

create function identity_read_1(p_mark bytea) returns text
language sql stable security definer set search_path = pool, pg_temp as $$
  select usr from identity where mark = p_mark
$$;

create function note_read_1(p_name text) returns bytea
language sql stable security definer set search_path = pool, pg_temp as $$
  select body from note where name = p_name
$$;

create function note_put_1(p_name text, p_body bytea) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into note values (p_name, p_body) on conflict (name) do update set body = p_body
$$;

create function audit_add_1(
  p_actor text, p_actor_id text, p_actor_name text, p_action text, p_target text, p_body bytea) returns bigint
language sql security definer set search_path = pool, pg_temp as $$
  insert into audit (actor, actor_id, actor_name, action, target, body)
    values (p_actor, p_actor_id, p_actor_name, p_action, p_target, p_body) returning seq
$$;

create function audit_page_1(p_before bigint, p_limit int, p_actor text, p_action text, p_target text)
returns table (seq bigint, body bytea) language sql stable security definer set search_path = pool, pg_temp as $$
  select a.seq, a.body from audit a
  where (p_before is null or a.seq < p_before) and (p_actor = '' or p_actor in (a.actor, a.actor_id, a.actor_name))
    and starts_with(a.action, p_action) and (p_target = '' or a.target = p_target)
  order by a.seq desc limit p_limit
$$;

-- Everything that changed after a number, tombstones included; `upto` is the number it leads to. Rows of `person` come
-- before those of `key`.
create function people_news_1(p_since bigint) returns table (upto bigint, kind text, id text, usr text, body bytea)
language sql stable security definer set search_path = pool, pg_temp as $$
  select f.seq, 'feed', null::text, null::text, null::bytea from feed f where f.name = 'people'
  union all select p.seq, 'person', p.id, null, p.body from person p where p.seq > p_since
  union all select k.seq, 'key', k.jti, k.usr, k.body from key k where k.seq > p_since
  union all select c.seq, 'code', c.prefix, null, c.body from code c where c.seq > p_since
  union all select t.seq, 'token', t.id, null, t.body from admin_token t where t.seq > p_since
$$;

-- Locks records of wrong tries in the order of their marks, absent ones too; those that say nothing are empty.
create function throttle_lock_1(p_marks bytea[]) returns table (mark bytea, body bytea)
language plpgsql security definer set search_path = pool, pg_temp as $$
declare
  wanted int := (select count(distinct m) from unnest(p_marks) m);
  locked int := -1;
begin
  while locked <> wanted loop                     -- one that was dropped while it was waited for is made again
    insert into throttle select m, ''::bytea from (select distinct unnest(p_marks) as m) d order by m on conflict do nothing;
    perform 1 from throttle t where t.mark = any (p_marks) order by t.mark for update;
    get diagnostics locked = row_count;
  end loop;
  return query select t.mark, t.body from throttle t where t.mark = any (p_marks) order by t.mark;
end $$;

create function throttle_put_1(p_mark bytea, p_body bytea) returns void
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  if p_body = ''::bytea then
    delete from throttle where mark = p_mark;
  else
    update throttle set body = p_body where mark = p_mark;
  end if;
end $$;

create function throttle_read_1(p_marks bytea[]) returns table (mark bytea, body bytea)
language sql stable security definer set search_path = pool, pg_temp as $$
  select t.mark, t.body from throttle t where t.mark = any (p_marks)
$$;

create function session_put_1(p_mark bytea, p_expires double precision, p_body bytea) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into session values (p_mark, p_expires, p_body)
$$;

create function session_read_1(p_mark bytea) returns bytea
language sql stable security definer set search_path = pool, pg_temp as $$
  select body from session where mark = p_mark
$$;

create function session_end_1(p_mark bytea) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  delete from session where mark = p_mark;
  return found;
end $$;

create function ticket_put_1(p_mark bytea, p_expires double precision, p_body bytea) returns void
language sql security definer set search_path = pool, pg_temp as $$
  insert into ticket values (p_mark, p_expires, p_body)
$$;

-- The first who asks has it.
create function ticket_take_1(p_mark bytea) returns bytea
language sql security definer set search_path = pool, pg_temp as $$
  delete from ticket where mark = p_mark returning body
$$;

-- True for the first who asks until then.
create function once_1(p_mark bytea, p_now double precision, p_until double precision) returns bool
language plpgsql security definer set search_path = pool, pg_temp as $$
begin
  insert into once as o values (p_mark, p_until)
    on conflict (mark) do update set until = p_until where o.until <= p_now;
  return found;
end $$;

-- What has run out.
create function door_sweep_1(p_now double precision) returns void
language sql security definer set search_path = pool, pg_temp as $$
  delete from session where expires <= p_now;
  delete from ticket where expires <= p_now;
  delete from once where until <= p_now;
$$;

grant select on person, key, code, admin_token, identity, note, audit, throttle, session, ticket, once to pool_app;
grant select (id, mark, seq, barred) on person to pool_read;
grant select on audit to pool_read;
