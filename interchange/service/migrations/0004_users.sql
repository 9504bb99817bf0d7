-- People who sign in, and what they are given. The tables that replicas of the version before read whole keep their
-- columns: they go on serving while this runs.

-- A row of clients belongs to each user as well: that is the identity that owns things, and it has no secret.
CREATE TABLE users (
    id UUID PRIMARY KEY,
    -- In lower case.
    name TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- The clients that users may sign in for.
CREATE TABLE sign_in_clients (
    client_id UUID PRIMARY KEY,
    -- Whether it runs on its user's machine and can keep no secret.
    native BOOLEAN NOT NULL,
    -- A JSON array: where it may have its codes sent.
    redirect_uris TEXT NOT NULL
);

-- The client that a token was given to, if that is another than whom it speaks for.
ALTER TABLE tokens ADD COLUMN issued_to UUID;
ALTER TABLE tokens ADD COLUMN scope TEXT NOT NULL DEFAULT '';
-- Of a user's token: the sign-in that it comes from.
ALTER TABLE tokens ADD COLUMN grant_id UUID;
CREATE INDEX tokens_by_grant ON tokens (grant_id);

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token.
    digest BYTEA PRIMARY KEY,
    grant_id UUID NOT NULL,
    user_id UUID NOT NULL,
    client_id UUID NOT NULL,
    resource_server TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id);
CREATE INDEX refresh_tokens_by_use ON refresh_tokens (used_at);

CREATE TABLE authorization_codes (
    -- SHA-256 of the code.
    digest BYTEA PRIMARY KEY,
    grant_id UUID NOT NULL,
    user_id UUID NOT NULL,
    client_id UUID NOT NULL,
    redirect_uri TEXT NOT NULL,
    -- Of PKCE: SHA-256 of the verifier, in base64url.
    challenge TEXT NOT NULL,
    scope TEXT NOT NULL,
    nonce TEXT,
    -- Whether refresh tokens are wanted.
    offline BOOLEAN NOT NULL,
    signed_in_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX authorization_codes_by_expiry ON authorization_codes (expires_at);

-- Attempts to sign in under a name that were not followed by a right password.
CREATE TABLE sign_in_attempts (
    -- SHA-256 of the name, whether or not there is such a user.
    name_digest BYTEA PRIMARY KEY,
    attempts BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    -- Before this time, further ones are refused unseen.
    next_at BIGINT NOT NULL
);
CREATE INDEX sign_in_attempts_by_age ON sign_in_attempts (last_at);

-- Keys that id_tokens are signed with: one for each server key.
CREATE TABLE signing_keys (
    id TEXT PRIMARY KEY,
    -- The JSON Web Key that verifies.
    public_key TEXT NOT NULL,
    -- The PKCS #8 private key, encrypted by a key derived from the server key.
    sealed BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);
