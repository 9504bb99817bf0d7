-- When the broker user was last made or renewed; 0: there is none.
ALTER TABLE clients ADD COLUMN broker_user_at BIGINT NOT NULL DEFAULT 0;
UPDATE clients SET broker_user_at = 1 WHERE has_broker_user;
ALTER TABLE clients DROP COLUMN has_broker_user;
ALTER TABLE endpoints ADD COLUMN broker_user_at BIGINT NOT NULL DEFAULT 0;
UPDATE endpoints SET broker_user_at = 1 WHERE has_broker_user;
ALTER TABLE endpoints DROP COLUMN has_broker_user;
