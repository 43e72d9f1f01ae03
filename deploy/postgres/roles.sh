#!/bin/sh
# Run once, when the database's folder is made: the nodes' role, with its password. `store migrate` makes the rest.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$POOL_STORE_PASSWORD" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
create role pool_app login password :'password';
SQL
