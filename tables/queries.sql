-- Statements that are executed for many rows at once, since peewee takes longer to write them than a
-- database to execute them, and some that are easier to read as SQL. `given` is the table of the rows
-- that a statement is executed for: its columns follow the statement's name. {clock} is the time in
-- microseconds, {concat} joins texts, {row_lock} locks the rows of `turn` that are read, {size_of_…} is
-- the size of a text in bytes. A statement without columns has parameters, {param}, and no `given`.

-- add_pieces(id bigint, fence bigint, start int, text text)
-- Store new text of replies that are in progress and have this fence. If a commit that we gave up
-- has stored a piece at this position after all, that one stays.
INSERT INTO piece (turn_id, start, text)
SELECT turn.id, given.start, given.text
FROM given
JOIN turn ON turn.id = given.id AND turn.fence = given.fence
WHERE turn.status = 'in_progress'
{row_lock}
ON CONFLICT DO NOTHING
RETURNING turn_id;

-- count_thinking(id bigint, fence bigint, characters bigint, milliseconds bigint)
-- Store how much the models of replies have thought, and for how long. Each reply has this fence and
-- is in progress, or was cancelled before its writer had stored everything.
UPDATE turn
SET thinking_characters = given.characters,
    thinking_milliseconds = given.milliseconds
FROM given
WHERE turn.id = given.id
AND turn.fence = given.fence
AND (turn.status = 'in_progress' OR turn.cancelled)
RETURNING turn.id;

-- add_thoughts(id bigint, fence bigint, start int, text text)
-- Store what they have thought, on the same conditions. If a commit that we gave up has stored some of
-- it after all, that row is replaced by the longer text.
INSERT INTO thought (turn_id, start, text)
SELECT turn.id, given.start, given.text
FROM given
JOIN turn ON turn.id = given.id AND turn.fence = given.fence
WHERE (turn.status = 'in_progress' OR turn.cancelled)
{row_lock}
ON CONFLICT (turn_id, start) DO UPDATE
SET text = excluded.text
RETURNING turn_id;

-- drop_thoughts(id bigint, fence bigint)
-- Delete what was stored as their thinking, on the same conditions: it turned out to be text.
DELETE FROM thought
WHERE turn_id IN (
    SELECT turn.id
    FROM given
    JOIN turn ON turn.id = given.id AND turn.fence = given.fence
    WHERE turn.status = 'in_progress' OR turn.cancelled
);

-- read_thoughts(id bigint, start int)
-- The stored thinking of replies, from this character on.
SELECT given.id, coalesce((
    SELECT {concat}(text, '')
    FROM (
        SELECT substr(
            text,
            CASE WHEN thought.start < given.start THEN given.start - thought.start ELSE 0 END + 1
        ) AS text
        FROM thought
        WHERE turn_id = given.id AND thought.start + length(text) > given.start
        ORDER BY thought.start
    ) AS rest
), '')
FROM given;

-- end_replies(
--     id bigint,
--     fence bigint,
--     lease_until bigint,
--     content text,
--     search_text text,
--     counted_tokens bigint
-- )
-- Store how replies ended. {changes} sets the columns that are stored at the end; `given` has them,
-- too. Each reply is in progress, has this fence, and has as many tokens as we believe are counted.
-- If `given` has a lease, the reply still has that one, unless it was cancelled. A reply that is not
-- complete is hidden if it was to replace another one. Long texts are null here, and stored by a
-- statement of their own: SQLite makes some 25 copies of all that goes through `given`.
UPDATE turn
SET {changes},
    content = coalesce(given.content, turn.content),
    folded = coalesce(given.search_text, turn.folded),
    shown = (given.status = 'complete' OR turn.replaces IS NULL),
    lease_until = NULL
FROM given
WHERE turn.id = given.id
AND turn.status = 'in_progress'
AND coalesce(turn.fence, 0) = coalesce(given.fence, 0)
AND (given.cancelled OR turn.lease_until = coalesce(given.lease_until, turn.lease_until))
AND given.counted_tokens = CAST(coalesce(turn.input_tokens, 0) AS bigint)
    + coalesce(turn.output_tokens, 0)
    + coalesce(turn.cached_tokens, 0)
    + turn.estimated_tokens
RETURNING turn.id;

-- store_usage(
--     id bigint,
--     fence bigint,
--     counted_tokens bigint
-- )
-- Store what replies have used that this process does not end, and what else only their writer knows:
-- {changes} sets the columns that are `told_late`; `given` has them, too. {reply} says why we do not
-- end it: it goes on here; or it is released (a process that sees the lease 0 may take it over at
-- once); or it was cancelled (it loses its fence, so that this is stored only once). Each has this
-- fence, and as many tokens as we believe are counted: a commit that we gave up may have added more.
UPDATE turn
SET {changes},
    lease_until = CASE WHEN '{reply}' = 'released' THEN 0 ELSE turn.lease_until END,
    fence = CASE WHEN '{reply}' = 'cancelled' THEN NULL ELSE turn.fence END
FROM given
WHERE turn.id = given.id
AND turn.fence = given.fence
AND CASE WHEN '{reply}' = 'cancelled' THEN turn.cancelled ELSE turn.status = 'in_progress' END
AND given.counted_tokens = CAST(coalesce(turn.input_tokens, 0) AS bigint)
    + coalesce(turn.output_tokens, 0)
    + coalesce(turn.cached_tokens, 0)
    + turn.estimated_tokens
RETURNING turn.id;

-- lock_sessions(id uuid)
SELECT id
FROM session
WHERE id IN (SELECT id FROM given)
ORDER BY id
FOR UPDATE;

-- lock_turns(id bigint)
SELECT id
FROM turn
WHERE id IN (SELECT id FROM given)
ORDER BY id
FOR UPDATE;

-- drop_pieces(id bigint, trim bigint)
-- Delete the pieces of replies that have ended: `content` has the text now.
DELETE FROM piece
WHERE turn_id IN (SELECT id FROM given);

-- show_turns(id bigint, trim bigint)
-- Show the replies again that were to be replaced, if the new ones are not shown.
UPDATE turn
SET shown = TRUE
FROM given
JOIN turn AS reply ON reply.id = given.id
WHERE turn.id = reply.replaces
AND NOT reply.shown;

-- change_sessions(id bigint, trim bigint)
-- The preview is the beginning of the reply that is shown. A new trim (the first turn that the model
-- is sent) counts if the session still has the model that replied, and nothing was too long for it.
UPDATE session
SET preview = coalesce(nullif(substr(turn.content, 1, {preview}), ''), session.preview),
    trim = CASE
        WHEN session.model = reply.model AND coalesce(reply.error_status, 0) <> 413
        THEN coalesce(given.trim, session.trim)
        ELSE session.trim
    END
FROM given
JOIN turn AS reply ON reply.id = given.id
JOIN turn ON turn.id = CASE WHEN reply.shown THEN reply.id ELSE reply.replaces END
WHERE session.id = turn.session_id;

-- renew_leases(id bigint, fence bigint)
UPDATE turn
SET lease_until = {clock} + {lease}
FROM given
WHERE turn.id = given.id
AND turn.fence = given.fence
AND turn.status = 'in_progress'
RETURNING turn.id;

-- list_sessions(pattern text)
-- A page of an owner's sessions, pinned ones first, then the last used: of all, or of those in which each pattern is LIKE
-- the title or a turn (ILIKE would take five times as long). The subquery skips the earlier pages by
-- the index alone. The preview of a reply in progress is the beginning of its text. `matching` is the
-- text of the newest turn that is LIKE one of the patterns, unless it is long. The owner is a
-- parameter, not a column of `given`, so that PostgreSQL's planner can tell how many sessions to
-- expect.
SELECT id, title, model, created_at, updated_at, pinned,
    coalesce(nullif(substr((
        SELECT {concat}(text, '')
        FROM (
            SELECT piece.text
            FROM turn
            JOIN piece ON piece.turn_id = turn.id AND piece.start < {preview}
            WHERE turn.session_id = session.id AND turn.status = 'in_progress'
            ORDER BY piece.start
        ) AS pieces
    ), 1, {preview}), ''), preview, '') AS preview,
    CASE WHEN {all} THEN NULL ELSE (
        SELECT CASE WHEN {size_of_content} <= {longest} THEN content END
        FROM turn
        WHERE turn.session_id = session.id
        AND turn.shown
        AND EXISTS (SELECT 1 FROM given WHERE turn.folded LIKE given.pattern ESCAPE '!')
        ORDER BY turn.id DESC
        LIMIT 1
    ) END AS matching
FROM session
WHERE id IN (
    SELECT id
    FROM session
    WHERE owner = {param}
    AND ({all} OR NOT EXISTS (
        SELECT 1
        FROM given
        WHERE session.folded_title NOT LIKE given.pattern ESCAPE '!'
        AND NOT EXISTS (
            SELECT 1
            FROM turn
            WHERE turn.session_id = session.id
            AND turn.shown
            AND turn.folded LIKE given.pattern ESCAPE '!'
        )
    ))
    ORDER BY pinned DESC, updated_at DESC, id DESC
    LIMIT {param}
    OFFSET {param}
)
ORDER BY pinned DESC, updated_at DESC, id DESC;

-- find_orphans(alive text)
-- Replies in progress that need another process: they were handed over (lease 0); their leases have
-- lapsed, or are longer than any lease, since the clock was set back; or their process was one of
-- this machine, and is not known to be alive. None of sessions that are being deleted (no owner).
SELECT turn.id, turn.lease_until, turn.restarts, session.owner, turn.writer,
    turn.lease_until NOT BETWEEN {clock} AND {clock} + {longest} AS has_lapsed
FROM turn
JOIN session ON session.id = turn.session_id
WHERE turn.status = 'in_progress'
AND session.owner <> ''
AND (
    turn.lease_until NOT BETWEEN {clock} AND {clock} + {longest}
    OR (
        substr(turn.writer, 1, {length}) = '{machine}'
        AND turn.writer NOT IN (SELECT alive FROM given)
    )
);

-- take_over(
--     id bigint,
--     fence bigint,
--     lease_until bigint,
--     restarts int,
--     most int,
--     writer text
-- )
-- Let another process, with a new fence, continue a reply whose lease is still this one, unless it
-- would have more restarts than `most`. If the model's server keeps the answer, this is counted only
-- if it turns out that the server does not have it any more.
UPDATE turn
SET fence = given.fence,
    writer = given.writer,
    lease_until = {clock} + {lease},
    continued = turn.continued + CASE WHEN turn.stream_id IS NULL THEN 1 ELSE 0 END,
    restarts = turn.restarts + CASE WHEN turn.stream_id IS NULL THEN given.restarts ELSE 0 END
FROM given
WHERE turn.id = given.id
AND turn.status = 'in_progress'
AND turn.lease_until = given.lease_until
AND turn.restarts + given.restarts <= given.most
RETURNING turn.id;

-- read_news(id bigint, start int)
-- The state of turns, and their text from this position on, if `start` is not null.
SELECT turn.id, turn.status, turn.fence, session.title, coalesce(turn.thinking_characters, 0),
    coalesce((
        SELECT {concat}(text, '')
        FROM (
            SELECT substr(
                text,
                CASE WHEN start < given.start THEN given.start - start ELSE 0 END + 1
            ) AS text
            FROM piece
            WHERE given.start IS NOT NULL
            AND turn_id = turn.id
            AND piece.start + length(piece.text) > given.start
            AND piece.start >= coalesce((
                SELECT max(last.start)
                FROM piece AS last
                WHERE last.turn_id = turn.id AND last.start <= given.start
            ), 0)
            ORDER BY piece.start
        ) AS rest
    ), '')
FROM given
JOIN turn ON turn.id = given.id
JOIN session ON session.id = turn.session_id;

-- add_usage(
--     turn bigint,
--     owner text,
--     day text,
--     model text,
--     replies bigint,
--     input_tokens bigint,
--     output_tokens bigint,
--     cached_tokens bigint,
--     estimated_tokens bigint,
--     failed bigint,
--     interrupted bigint
-- )
-- Add to the ledger. If neither the turn's session nor other usage names the owner, that user was
-- forgotten meanwhile, and the owner becomes ''. Sorted, so that no two transactions deadlock.
INSERT INTO usage (
    owner,
    day,
    model,
    replies,
    input_tokens,
    output_tokens,
    cached_tokens,
    estimated_tokens,
    failed,
    interrupted
)
SELECT
    CASE
        WHEN EXISTS (
            SELECT 1
            FROM turn
            JOIN session ON session.id = turn.session_id
            WHERE turn.id = given.turn AND session.owner = given.owner
        ) OR EXISTS (SELECT 1 FROM usage AS known WHERE known.owner = given.owner) THEN owner
        ELSE ''
    END AS named,
    day,
    model,
    sum(replies),
    sum(input_tokens),
    sum(output_tokens),
    sum(cached_tokens),
    sum(estimated_tokens),
    sum(failed),
    sum(interrupted)
FROM given
GROUP BY named, day, model
ORDER BY named, day, model
ON CONFLICT (owner, day, model) DO UPDATE
SET replies = usage.replies + excluded.replies,
    input_tokens = usage.input_tokens + excluded.input_tokens,
    output_tokens = usage.output_tokens + excluded.output_tokens,
    cached_tokens = usage.cached_tokens + excluded.cached_tokens,
    estimated_tokens = usage.estimated_tokens + excluded.estimated_tokens,
    failed = usage.failed + excluded.failed,
    interrupted = usage.interrupted + excluded.interrupted;

-- read_session()
-- A session of this owner, with {columns}. The system prompt, the only column that may be long, is null
-- if it is long.
SELECT {columns},
    CASE WHEN {size_of_system} <= {small} THEN system END AS system,
    coalesce({size_of_system}, 0) AS system_size
FROM session
WHERE owner = {param} AND id = {param};

-- lock_session()
-- Lock a session of this owner before a new reply, by an update of its row. Null as the latest reply
-- means the newest, which is about to be inserted. A preview of null leaves the old one.
UPDATE session
SET updated_at = {param}, latest_reply = NULL, preview = coalesce({param}, preview)
WHERE owner = {param} AND id = {param};

-- read_locked_session()
-- The same as `read_session`, with the id of its last turn, and whether a reply is in progress.
SELECT {columns},
    CASE WHEN {size_of_system} <= {small} THEN system END AS system,
    coalesce({size_of_system}, 0) AS system_size,
    (SELECT max(turn.id) FROM turn WHERE turn.session_id = session.id) AS last_turn,
    EXISTS (
        SELECT 1 FROM turn WHERE turn.session_id = session.id AND turn.status = 'in_progress'
    ) AS is_busy
FROM session
WHERE owner = {param} AND id = {param};

-- read_latest_reply()
-- The reply of a session that was requested or continued last. Release 1.0.0 does not update
-- `latest_reply` when it starts a reply; such a reply was created when the session was last updated.
SELECT id, status, fence, turns_left_out, input_tokens, output_tokens, cached_tokens,
    estimated_tokens,
    {size_of_content}
        + coalesce((SELECT sum({size_of_text}) FROM piece WHERE turn_id = turn.id), 0)
        + coalesce({size_of_error_message}, 0) AS size
FROM turn
WHERE id = (
    SELECT coalesce(
        (SELECT id FROM turn WHERE session_id = session.id AND status = 'in_progress'),
        (
            SELECT max(id)
            FROM turn
            WHERE session_id = session.id
            AND id > session.latest_reply
            AND fence IS NULL
            AND turn.created_at = session.updated_at
            AND kind = 'assistant'
        ),
        latest_reply,
        (SELECT max(id) FROM turn WHERE session_id = session.id AND kind = 'assistant')
    )
    FROM session
    WHERE id = {param}
);

-- copy_turns(id bigint, copy bigint)
-- Copy turns, each under a new id, into this session: {columns} are the columns that a fork copies,
-- {values} their expressions.
INSERT INTO turn (id, session_id, shown, uncounted, restarts, {columns})
SELECT given.copy, session.id, TRUE, 0, 0, {values}
FROM given
JOIN turn ON turn.id = given.id
JOIN session ON session.id = {param};

-- copy_thoughts(id bigint, copy bigint)
INSERT INTO thought (turn_id, start, text)
SELECT given.copy, start, text
FROM given
JOIN thought ON thought.turn_id = given.id;

-- copy_files(id bigint, copy bigint)
-- Let copies of turns have the same files.
INSERT INTO turn_file (turn_id, place, file_id)
SELECT given.copy, place, file_id
FROM given
JOIN turn_file ON turn_file.turn_id = given.id;

-- size_newest_turn()
SELECT {size_of_content} + coalesce({size_of_error_message}, 0)
FROM turn
WHERE session_id = {param} AND shown
ORDER BY id DESC
LIMIT 1;

-- size_turns()
SELECT coalesce(sum({size_of_content} + {overhead}), 0)
FROM turn
WHERE session_id = {param} AND shown;

-- count_turns()
SELECT count(*)
FROM turn
WHERE session_id = {param} AND shown AND id < {param};

-- read_turns()
-- A page of a session's visible or replaced turns on one side of an id, nearest first: at most so many
-- rows, and at most so many bytes together, but at least one row. `size` is the running total of
-- bytes, from the nearest on: of all texts, and an overhead for each turn. The content of turns that
-- do not fit is never read, nor that of the nearest if it alone is larger than the first parameter.
-- {columns} are the other columns that are shown; their texts have {size_of_others} bytes.
SELECT {columns}, of_all, size_of_all,
    CASE
        WHEN nearest.size > {param} THEN NULL
        WHEN status = 'in_progress' THEN coalesce((
            SELECT {concat}(text, '')
            FROM (SELECT text FROM piece WHERE turn_id = turn.id ORDER BY start) AS pieces
        ), '')
        ELSE content
    END AS content
FROM turn
JOIN (
    SELECT id, row_number() OVER nearer AS number, sum(size) OVER nearer AS size,
        count(*) OVER () AS of_all, sum(size) OVER () AS size_of_all
    FROM (
        SELECT id, CAST(
            {overhead}
            + {size_of_others}
            + CASE WHEN status = 'in_progress'
                THEN coalesce((SELECT sum({size_of_text}) FROM piece WHERE turn_id = turn.id), 0)
                ELSE {size_of_content}
            END AS integer) AS size
        FROM turn
        WHERE session_id = {param} AND {which} AND id {side} {param}
        ORDER BY id {order}
        LIMIT {param}
    ) AS sized
    WINDOW nearer AS (ORDER BY id {order})
) AS nearest ON nearest.id = turn.id
WHERE number <= {param} AND (number = 1 OR nearest.size <= {param})
ORDER BY turn.id {order};
