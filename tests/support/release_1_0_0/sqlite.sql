-- What release 1.0.0 makes in an empty file. It is never changed: users have such databases.
PRAGMA journal_mode = wal;
CREATE TABLE "release" ("id" INTEGER NOT NULL PRIMARY KEY, "migrations" INTEGER NOT NULL);
CREATE TABLE "session" (
  "id" TEXT NOT NULL PRIMARY KEY,
  "owner" TEXT NOT NULL,
  "title" TEXT NOT NULL,
  "title_is_users" INTEGER NOT NULL,
  "model" TEXT NOT NULL,
  "system" TEXT,
  "preview" TEXT,
  "created_at" INTEGER NOT NULL,
  "updated_at" INTEGER NOT NULL,
  "folded_title" TEXT NOT NULL
);
CREATE TABLE "turn" (
  "id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  "session_id" TEXT NOT NULL,
  "kind" TEXT NOT NULL,
  "content" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "shown" INTEGER NOT NULL,
  "model" TEXT,
  "status" TEXT,
  "lease_until" INTEGER,
  "cancelled" INTEGER NOT NULL,
  "replaces" INTEGER,
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
  "turn_id" INTEGER NOT NULL,
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
  "session_id" TEXT NOT NULL,
  "turn_id" INTEGER NOT NULL,
  "created_at" INTEGER NOT NULL,
  PRIMARY KEY ("owner", "path", "key")
);
CREATE TABLE "asked" ("id" INTEGER NOT NULL PRIMARY KEY, "owner" TEXT NOT NULL, "at" INTEGER NOT NULL);
CREATE INDEX "session_list" ON "session" ("owner", "updated_at" DESC, "id" DESC);
CREATE INDEX "turn_session" ON "turn" ("session_id", "id");
CREATE UNIQUE INDEX "one_reply_at_a_time" ON "turn" ("session_id") WHERE status = 'in_progress';
CREATE INDEX "key_created_at" ON "key" ("created_at");
CREATE INDEX "asked_owner_at" ON "asked" ("owner", "at");
INSERT INTO "release" ("id", "migrations") VALUES (1, 1);
