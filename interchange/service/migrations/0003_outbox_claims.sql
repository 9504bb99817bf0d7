-- Claims change while the payload beside which they stood does not: SQLite would write it again with every change.
CREATE TABLE outbox_claims (
    task_id UUID PRIMARY KEY,
    -- Until then the replica that wrote or took the entry publishes it.
    claimed_until BIGINT NOT NULL
);
INSERT INTO outbox_claims (task_id, claimed_until) SELECT task_id, claimed_until FROM outbox;
CREATE INDEX outbox_claims_by_end ON outbox_claims (claimed_until);
DROP INDEX outbox_by_claim;
ALTER TABLE outbox DROP COLUMN claimed_until;
