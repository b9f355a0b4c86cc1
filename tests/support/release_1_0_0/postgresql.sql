-- What release 1.0.0 makes in an empty database. It is never changed: users have such databases.
CREATE TABLE "release" ("id" SERIAL NOT NULL PRIMARY KEY, "migrations" INTEGER NOT NULL);
CREATE TABLE "session" (
  "id" UUID NOT NULL PRIMARY KEY,
  "owner" TEXT NOT NULL,
  "title" TEXT NOT NULL,
  "title_is_users" BOOLEAN NOT NULL,
  "model" TEXT NOT NULL,
  "system" TEXT,
  "preview" TEXT,
  "created_at" BIGINT NOT NULL,
  "updated_at" BIGINT NOT NULL,
  "folded_title" TEXT NOT NULL
);
CREATE TABLE "turn" (
  "id" BIGSERIAL NOT NULL PRIMARY KEY,
  "session_id" UUID NOT NULL,
  "kind" TEXT NOT NULL,
  "content" TEXT NOT NULL,
  "created_at" BIGINT NOT NULL,
  "shown" BOOLEAN NOT NULL,
  "model" TEXT,
  "status" TEXT,
  "lease_until" BIGINT,
  "cancelled" BOOLEAN NOT NULL,
  "replaces" BIGINT,
  "input_tokens" INTEGER,
  "output_tokens" INTEGER,
  "cached_tokens" INTEGER,
  "error_status" INTEGER,
  "error_message" TEXT,
  "retry_after" INTEGER,
  "folded" TEXT NOT NULL,
  FOREIGN KEY ("session_id") REFERENCES "session" ("id") ON DELETE CASCADE
);
CREATE TABLE "piece" (
  "turn_id" BIGINT NOT NULL,
  "start" INTEGER NOT NULL,
  "text" TEXT NOT NULL,
  PRIMARY KEY ("turn_id", "start"),
  FOREIGN KEY ("turn_id") REFERENCES "turn" ("id") ON DELETE CASCADE
);
CREATE TABLE "key" (
  "owner" TEXT NOT NULL,
  "path" TEXT NOT NULL,
  "key" TEXT NOT NULL,
  "body" TEXT NOT NULL,
  "session_id" UUID NOT NULL,
  "turn_id" BIGINT NOT NULL,
  "created_at" BIGINT NOT NULL,
  PRIMARY KEY ("owner", "path", "key")
);
CREATE TABLE "asked" ("id" SERIAL NOT NULL PRIMARY KEY, "owner" TEXT NOT NULL, "at" BIGINT NOT NULL);
CREATE INDEX "session_list" ON "session" ("owner", "updated_at" DESC, "id" DESC);
CREATE INDEX "turn_session" ON "turn" ("session_id", "id");
CREATE UNIQUE INDEX "one_reply_at_a_time" ON "turn" ("session_id") WHERE status = 'in_progress';
CREATE INDEX "key_created_at" ON "key" ("created_at");
CREATE INDEX "asked_owner_at" ON "asked" ("owner", "at");
INSERT INTO "release" ("migrations") VALUES (1);
