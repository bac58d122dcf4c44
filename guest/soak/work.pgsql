\set ON_ERROR_STOP on
CREATE TABLE item AS SELECT i AS id, (i * 7919) % 10007 AS key, md5(i::text) AS name FROM generate_series(1, 40000) i;
CREATE INDEX ON item(key);
CREATE INDEX ON item USING hash(name);
UPDATE item SET name = name || '+' WHERE key % 7 = 3;
DELETE FROM item WHERE key % 11 = 5;
BEGIN;
UPDATE item SET key = key + 1;
ROLLBACK;
VACUUM ANALYZE item;
SELECT count(*), sum(key), md5(string_agg(name, ',' ORDER BY id)) FROM item;
SELECT a.key % 13 AS k, count(*), sum(b.id) FROM item a JOIN item b ON a.key = b.key + 1 GROUP BY k ORDER BY k;
SELECT sum(ascii(name) * id) FROM (SELECT * FROM item ORDER BY name LIMIT 20000) s;
CREATE EXTENSION IF NOT EXISTS amcheck;
SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_am a ON a.oid = c.relam
    WHERE a.amname = 'btree' AND c.relname LIKE 'item%';
