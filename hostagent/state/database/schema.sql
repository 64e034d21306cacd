CREATE TABLE "meta" (
   "key" TEXT PRIMARY KEY,
   "value" TEXT
);
CREATE TABLE "files" (
   "id" INTEGER PRIMARY KEY,
   "device" INTEGER,
   "inode" INTEGER,
   "birth_ns" INTEGER,
   "generation" INTEGER,
   "fingerprint_length" INTEGER,
   "fingerprint" BLOB,
   "path" BLOB,
   "target" BLOB,
   "source" TEXT,
   "tags" TEXT,
   "storage" TEXT,
   "seen_ns" INTEGER,
   "gone_ns" INTEGER
);
CREATE TABLE "positions" (
   "file" INTEGER,
   "output" TEXT,
   "offset" INTEGER,
   "anchor" BLOB,
   "skipped" INTEGER,
   "acked" INTEGER,
   "wanted" INTEGER,
   PRIMARY KEY ("file", "output")
);
CREATE TABLE "inflight" (
   "seq" INTEGER PRIMARY KEY,
   "id" TEXT,
   "output" TEXT,
   "observed_ns" INTEGER,
   "parts" BLOB
);
CREATE UNIQUE INDEX "idx_inflight_id"
    ON "inflight" ("id");
CREATE TABLE "losses" (
   "seq" INTEGER PRIMARY KEY,
   "source" TEXT,
   "path" BLOB,
   "file" INTEGER,
   "start" INTEGER,
   "end" INTEGER,
   "reason" TEXT,
   "output" TEXT,
   "at_ns" INTEGER
);
CREATE UNIQUE INDEX "idx_losses_file_start_end_output_reason_path_source"
    ON "losses" ("file", "start", "end", "output", "reason", "path", "source");
CREATE TABLE "loss_totals" (
   "source" TEXT,
   "output" TEXT,
   "reason" TEXT,
   "losses" INTEGER,
   "bytes" INTEGER,
   "unknown" INTEGER,
   PRIMARY KEY ("source", "output", "reason")
);
CREATE TABLE "totals" (
   "source" TEXT,
   "output" TEXT,
   "files" INTEGER,
   "written" INTEGER,
   "skipped" INTEGER,
   "acked" INTEGER,
   "lost" INTEGER,
   "lost_unsized" INTEGER,
   "unaccounted" INTEGER,
   PRIMARY KEY ("source", "output")
);
CREATE TABLE "spooled" (
   "output" TEXT,
   "segment" INTEGER,
   "offset" INTEGER,
   "parts" BLOB, "id" TEXT, "observed_ns" INTEGER,
   PRIMARY KEY ("output", "segment", "offset")
);
CREATE TABLE "reclaims" (
   "seq" INTEGER PRIMARY KEY,
   "id" TEXT,
   "output" TEXT,
   "observed_ns" INTEGER,
   "parts" BLOB,
   "reason" TEXT
);
CREATE TABLE "segments" (
   "output" TEXT,
   "segment" INTEGER,
   "end" INTEGER,
   PRIMARY KEY ("output", "segment")
);
CREATE TABLE "divided" (
   "id" TEXT PRIMARY KEY,
   "block" TEXT,
   "output" TEXT
);
CREATE INDEX "idx_reclaims_output"
    ON "reclaims" ("output");
