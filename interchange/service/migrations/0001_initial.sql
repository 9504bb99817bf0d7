-- One text for SQLite and PostgreSQL. Times are milliseconds since the Unix epoch; JSON is kept as text.

CREATE TABLE clients (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL,
    secret_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT,
    -- Raised to change the password of the client's broker user.
    rotation BIGINT NOT NULL DEFAULT 0,
    -- Whether the broker user was made and not removed since.
    has_broker_user BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE TABLE tokens (
    -- SHA-256 of the token: the token itself is not kept.
    digest BYTEA PRIMARY KEY,
    client_id UUID NOT NULL,
    resource_server TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX tokens_by_expiry ON tokens (expires_at);
CREATE INDEX tokens_by_client ON tokens (client_id);

CREATE TABLE functions (
    id UUID PRIMARY KEY,
    owner UUID NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    code TEXT NOT NULL,
    metadata TEXT NOT NULL,
    public BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);

CREATE TABLE endpoints (
    id UUID PRIMARY KEY,
    -- direct, template or user
    kind TEXT NOT NULL,
    -- Who registered it; for a user endpoint, who submits to it.
    owner UUID NOT NULL,
    -- The template endpoint of a user endpoint.
    parent UUID,
    name TEXT NOT NULL,
    display_name TEXT,
    public BOOLEAN NOT NULL,
    multi_user BOOLEAN NOT NULL,
    metadata TEXT NOT NULL,
    -- A JSON array of function ids, or null: all functions.
    allowed_functions TEXT,
    -- A JSON array of identities.
    admins TEXT,
    -- The registration's remaining fields.
    properties TEXT NOT NULL,
    -- Of a user endpoint: what its template is rendered with.
    user_config TEXT,
    user_runtime TEXT,
    created_at BIGINT NOT NULL,
    registered_at BIGINT NOT NULL,
    locked_until BIGINT NOT NULL DEFAULT 0,
    -- The last heartbeat: when, the seconds to the next one in milliseconds (0: it said that it stops), and its text.
    heartbeat_at BIGINT NOT NULL DEFAULT 0,
    heartbeat_period_ms BIGINT NOT NULL DEFAULT 0,
    report TEXT,
    -- When the start command of a user endpoint was last sent for want of an answer.
    nudged_at BIGINT NOT NULL DEFAULT 0,
    rotation BIGINT NOT NULL DEFAULT 0,
    has_broker_user BOOLEAN NOT NULL DEFAULT FALSE,
    deleted_at BIGINT,
    -- When what a deleted endpoint had on the broker was removed.
    cleaned_at BIGINT
);
CREATE INDEX endpoints_by_owner ON endpoints (owner);
CREATE INDEX endpoints_by_parent ON endpoints (parent);

CREATE TABLE task_groups (
    id UUID PRIMARY KEY,
    owner UUID NOT NULL,
    created_at BIGINT NOT NULL,
    -- When its result queue was last declared for its client; 0 if it has none.
    queue_at BIGINT NOT NULL,
    -- Since when the queue was seen empty and without a consumer; null if it is in use.
    queue_idle_since BIGINT
);
CREATE INDEX task_groups_by_queue ON task_groups (queue_at);

CREATE TABLE tasks (
    id UUID PRIMARY KEY,
    group_id UUID NOT NULL,
    owner UUID NOT NULL,
    -- The endpoint that the client named, and the one whose queue the task went to (a user endpoint, or the same).
    target_id UUID NOT NULL,
    endpoint_id UUID NOT NULL,
    function_id UUID NOT NULL,
    -- received, waiting-for-ep, running, success or failed
    state TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    sent_at BIGINT,
    started_at BIGINT,
    ended_at BIGINT,
    finished_at BIGINT,
    -- When the result was put on the client's queue, or there was none to put it on.
    forwarded_at BIGINT,
    -- When a client read the result.
    fetched_at BIGINT
);
CREATE INDEX tasks_by_group ON tasks (group_id);
CREATE INDEX tasks_unfinished ON tasks (endpoint_id) WHERE finished_at IS NULL;
CREATE INDEX tasks_by_finish ON tasks (finished_at);
CREATE INDEX tasks_by_receipt ON tasks (received_at);
CREATE INDEX tasks_unforwarded ON tasks (finished_at) WHERE finished_at IS NOT NULL AND forwarded_at IS NULL;

CREATE TABLE results (
    task_id UUID PRIMARY KEY,
    -- The message as the endpoint sent it.
    body BYTEA NOT NULL
);

-- Tasks that are accepted and that the broker has not confirmed.
CREATE TABLE outbox (
    task_id UUID PRIMARY KEY,
    endpoint_id UUID NOT NULL,
    function_id UUID NOT NULL,
    payload TEXT NOT NULL,
    resource_specification TEXT,
    result_serializers TEXT,
    -- Until then the replica that wrote or took the row publishes it.
    claimed_until BIGINT NOT NULL
);
CREATE INDEX outbox_by_claim ON outbox (claimed_until);
