PRAGMA journal_mode = WAL;
CREATE TABLE item(id INTEGER PRIMARY KEY, key INTEGER, name TEXT, data BLOB);
CREATE INDEX by_key ON item(key);
CREATE INDEX by_name ON item(name, key);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
INSERT INTO item SELECT i, (i * 7919) % 10007, printf('name-%08x', (i * 2654435761) % 4294967296), zeroblob(i % 300) FROM n;
BEGIN;
UPDATE item SET name = name || '+' WHERE key % 7 = 3;
DELETE FROM item WHERE key % 11 = 5;
COMMIT;
BEGIN;
UPDATE item SET data = zeroblob(2000) WHERE id % 50 = 1;
ROLLBACK;
PRAGMA integrity_check;
SELECT count(*), sum(key), sum(length(name)), sum(length(data)), max(name) FROM item;
SELECT a.key % 13 AS k, count(*), sum(b.id) FROM item a JOIN item b ON a.key = b.key + 1 GROUP BY k ORDER BY k;
VACUUM;
PRAGMA integrity_check;
SELECT sum(id * (key + 1) % 65521) FROM item;
