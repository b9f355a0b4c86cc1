-- Statements that are executed for many rows at once, which peewee takes longer to write than a
-- database to execute, and some that are easier to read as SQL. `given` in them is the table of what
-- they are executed for: its columns stand behind the statement's name. {clock} is the time in
-- microseconds, {concat} joins texts, {held} holds the rows of `turn` that are read, {size_of_…} are
-- the bytes of a text. A statement without columns has parameters, {param}, in the place of `given`.

-- add_pieces(id bigint, fence bigint, start int, text text)
-- Store text of replies that are under way and have this fence. Where a commit that was given up has
-- stored a piece from there on all the same, its text stands.
INSERT INTO piece (turn_id, start, text)
SELECT turn.id, given.start, given.text
FROM given
JOIN turn ON turn.id = given.id AND turn.fence = given.fence
WHERE turn.status = 'in_progress'
{held}
ON CONFLICT DO NOTHING
RETURNING turn_id;

-- count_thinking(id bigint, fence bigint, characters bigint, milliseconds bigint)
-- How much the models of replies have thought, and for how long. Each has this fence, and is under
-- way, or was cancelled while its writer had not stored all.
UPDATE turn
SET thinking_characters = given.characters,
    thinking_milliseconds = given.milliseconds
FROM given
WHERE turn.id = given.id
AND turn.fence = given.fence
AND (turn.status = 'in_progress' OR turn.cancelled)
RETURNING turn.id;

-- add_thoughts(id bigint, fence bigint, start int, text text)
-- Store what they have thought, on the same conditions. If a commit that was given up has stored some
-- of that all the same, it is stored again, with what follows.
INSERT INTO thought (turn_id, start, text)
SELECT turn.id, given.start, given.text
FROM given
JOIN turn ON turn.id = given.id AND turn.fence = given.fence
WHERE (turn.status = 'in_progress' OR turn.cancelled)
{held}
ON CONFLICT (turn_id, start) DO UPDATE
SET text = excluded.text
RETURNING turn_id;

-- drop_thoughts(id bigint, fence bigint)
-- Take back what was stored of their thinking, on the same conditions: there was text among it.
DELETE FROM thought
WHERE turn_id IN (
    SELECT turn.id
    FROM given
    JOIN turn ON turn.id = given.id AND turn.fence = given.fence
    WHERE turn.status = 'in_progress' OR turn.cancelled
);

-- read_thoughts(id bigint, start int)
-- What is stored of the thinking of replies, from this character on.
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
--     status text,
--     content text,
--     search_text text,
--     cancelled boolean,
--     error_status int,
--     error_message text,
--     error_pointer text,
--     retry_after int,
--     input_tokens int,
--     output_tokens int,
--     cached_tokens int,
--     estimated_tokens int,
--     uncounted bigint,
--     stop_reason text,
--     turns_left_out int,
--     continued int,
--     counted_tokens bigint
-- )
-- Store how replies ended. Each is under way, has this fence, and as many tokens as are believed to
-- be counted. Where a lease is given, it is still that one, or the reply was cancelled. A reply that
-- is not complete gives way to the one that it replaces. Long texts are null here, and stored by a
-- statement of their own: SQLite makes some 25 copies of what goes through `given`.
UPDATE turn
SET status = given.status,
    content = coalesce(given.content, turn.content),
    shown = given.status = 'complete' OR turn.replaces IS NULL,
    folded = coalesce(given.search_text, turn.folded),
    cancelled = given.cancelled,
    error_status = given.error_status,
    error_message = given.error_message,
    error_pointer = given.error_pointer,
    retry_after = given.retry_after,
    input_tokens = given.input_tokens,
    output_tokens = given.output_tokens,
    cached_tokens = given.cached_tokens,
    estimated_tokens = given.estimated_tokens,
    uncounted = given.uncounted,
    stop_reason = given.stop_reason,
    turns_left_out = given.turns_left_out,
    continued = given.continued,
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
--     turns_left_out int,
--     input_tokens int,
--     output_tokens int,
--     cached_tokens int,
--     estimated_tokens int,
--     uncounted bigint,
--     counted_tokens bigint
-- )
-- What replies have used that go on here. Each has this fence, and as many tokens as are believed to
-- be counted: a commit that was given up may have counted more all the same.
UPDATE turn
SET turns_left_out = given.turns_left_out,
    input_tokens = given.input_tokens,
    output_tokens = given.output_tokens,
    cached_tokens = given.cached_tokens,
    estimated_tokens = given.estimated_tokens,
    uncounted = given.uncounted
FROM given
WHERE turn.id = given.id
AND turn.fence = given.fence
AND turn.status = 'in_progress'
AND given.counted_tokens = CAST(coalesce(turn.input_tokens, 0) AS bigint)
    + coalesce(turn.output_tokens, 0)
    + coalesce(turn.cached_tokens, 0)
    + turn.estimated_tokens
RETURNING turn.id;

-- release_replies(
--     id bigint,
--     fence bigint,
--     turns_left_out int,
--     input_tokens int,
--     output_tokens int,
--     cached_tokens int,
--     estimated_tokens int,
--     uncounted bigint,
--     counted_tokens bigint
-- )
-- The same, and the replies are handed over: a process that sees the lease 0 may take them at once.
UPDATE turn
SET turns_left_out = given.turns_left_out,
    input_tokens = given.input_tokens,
    output_tokens = given.output_tokens,
    cached_tokens = given.cached_tokens,
    estimated_tokens = given.estimated_tokens,
    uncounted = given.uncounted,
    lease_until = 0
FROM given
WHERE turn.id = given.id
AND turn.fence = given.fence
AND turn.status = 'in_progress'
AND given.counted_tokens = CAST(coalesce(turn.input_tokens, 0) AS bigint)
    + coalesce(turn.output_tokens, 0)
    + coalesce(turn.cached_tokens, 0)
    + turn.estimated_tokens
RETURNING turn.id;

-- settle_usage(
--     id bigint,
--     fence bigint,
--     turns_left_out int,
--     input_tokens int,
--     output_tokens int,
--     cached_tokens int,
--     estimated_tokens int,
--     uncounted bigint,
--     counted_tokens bigint
-- )
-- What replies have used that were cancelled. They lose their fence, so that it is stored once.
UPDATE turn
SET turns_left_out = given.turns_left_out,
    input_tokens = given.input_tokens,
    output_tokens = given.output_tokens,
    cached_tokens = given.cached_tokens,
    estimated_tokens = given.estimated_tokens,
    uncounted = given.uncounted,
    fence = NULL
FROM given
WHERE turn.id = given.id
AND turn.fence = given.fence
AND turn.cancelled
AND given.counted_tokens = CAST(coalesce(turn.input_tokens, 0) AS bigint)
    + coalesce(turn.output_tokens, 0)
    + coalesce(turn.cached_tokens, 0)
    + turn.estimated_tokens
RETURNING turn.id;

-- hold_sessions(id uuid)
SELECT id
FROM session
WHERE id IN (SELECT id FROM given)
ORDER BY id
FOR UPDATE;

-- hold_turns(id bigint)
SELECT id
FROM turn
WHERE id IN (SELECT id FROM given)
ORDER BY id
FOR UPDATE;

-- drop_pieces(id bigint, trim bigint)
-- Of replies that have ended: their content has the text now.
DELETE FROM piece
WHERE turn_id IN (SELECT id FROM given);

-- show_turns(id bigint, trim bigint)
-- Show a reply again that the one that ended would have replaced.
UPDATE turn
SET shown = TRUE
FROM given
JOIN turn AS reply ON reply.id = given.id
WHERE turn.id = reply.replaces
AND NOT reply.shown;

-- change_sessions(id bigint, trim bigint)
-- The preview is that of the reply that is shown. The trim, where there is one, holds for the model
-- that replied.
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
-- An owner's sessions, the last used first: all of them, or those that are LIKE all patterns, each in
-- the title or in a turn (ILIKE would take five times as long). What comes before the page is skipped
-- by the index alone. The preview of a reply under way is its beginning. The owner is no column of
-- `given`, so that PostgreSQL's planner knows how many sessions to expect.
SELECT id, title, model, created_at, updated_at,
    coalesce(nullif(substr((
        SELECT {concat}(text, '')
        FROM (
            SELECT piece.text
            FROM turn
            JOIN piece ON piece.turn_id = turn.id AND piece.start < {preview}
            WHERE turn.session_id = session.id AND turn.status = 'in_progress'
            ORDER BY piece.start
        ) AS pieces
    ), 1, {preview}), ''), preview, '') AS preview
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
    ORDER BY updated_at DESC, id DESC
    LIMIT {param}
    OFFSET {param}
)
ORDER BY updated_at DESC, id DESC;

-- find_orphans(alive text)
-- Replies under way that were handed over, or whose leases have lapsed, or are longer than any since
-- the clock was set back; and those of processes of this machine that are not known to be alive. None
-- that is being deleted.
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
-- Have another process, with this fence, write on a reply whose lease is still this one. So many
-- restarts more may be the most.
UPDATE turn
SET fence = given.fence,
    writer = given.writer,
    lease_until = {clock} + {lease},
    continued = turn.continued + 1,
    restarts = turn.restarts + given.restarts
FROM given
WHERE turn.id = given.id
AND turn.status = 'in_progress'
AND turn.lease_until = given.lease_until
AND turn.restarts + given.restarts <= given.most
RETURNING turn.id;

-- read_news(id bigint, start int)
-- What has become of turns, and their text from this position on, where one is given.
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
-- An owner whom neither the turn's session names nor other usage was forgotten meanwhile, and is not
-- named again. In one order, so that no two transactions wait for each other.
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

-- read_latest_reply()
-- The reply of a session that was last asked for or continued. 1.0.0 leaves in `latest_reply` what
-- there is when it asks for one, which has the time at which it has changed the session.
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
-- Copy turns, each under a new id, into this session. Who wrote them, and how they came to be shown,
-- stays behind.
INSERT INTO turn (
    id,
    session_id,
    kind,
    content,
    folded,
    created_at,
    shown,
    cancelled,
    model,
    status,
    input_tokens,
    output_tokens,
    cached_tokens,
    estimated_tokens,
    uncounted,
    error_status,
    error_message,
    error_pointer,
    retry_after,
    stop_reason,
    continued,
    restarts,
    turns_left_out,
    thinking_characters,
    thinking_milliseconds
)
SELECT
    given.copy,
    session.id,
    kind,
    content,
    folded,
    turn.created_at,
    TRUE,
    cancelled,
    turn.model,
    status,
    input_tokens,
    output_tokens,
    cached_tokens,
    estimated_tokens,
    0,
    error_status,
    error_message,
    error_pointer,
    retry_after,
    stop_reason,
    continued,
    0,
    turns_left_out,
    thinking_characters,
    thinking_milliseconds
FROM given
JOIN turn ON turn.id = given.id
JOIN session ON session.id = {param};

-- copy_thoughts(id bigint, copy bigint)
INSERT INTO thought (turn_id, start, text)
SELECT given.copy, start, text
FROM given
JOIN thought ON thought.turn_id = given.id;

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
-- What is shown of a session's visible turns on one side of an id, the nearest first, so many rows at
-- most: as many of these as have so many bytes together, but at least one. `size` are the bytes with
-- all that are nearer: of all their texts, and an overhead besides. No text is read of those that are
-- left out, nor of the nearest if it has more bytes than the first two parameters say.
SELECT turn.id, kind, created_at, model, status, input_tokens, output_tokens, cached_tokens,
    error_status, CASE WHEN nearest.size <= {param} THEN error_message END AS error_message,
    error_pointer, stop_reason, continued, turns_left_out, thinking_characters,
    thinking_milliseconds, of_all, size_of_all,
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
            + coalesce({size_of_model}, 0)
            + coalesce({size_of_error_message}, 0)
            + CASE WHEN status = 'in_progress'
                THEN coalesce((SELECT sum({size_of_text}) FROM piece WHERE turn_id = turn.id), 0)
                ELSE {size_of_content}
            END AS integer) AS size
        FROM turn
        WHERE session_id = {param} AND shown AND id {side} {param}
        ORDER BY id {order}
        LIMIT {param}
    ) AS sized
    WINDOW nearer AS (ORDER BY id {order})
) AS nearest ON nearest.id = turn.id
WHERE number <= {param} AND (number = 1 OR nearest.size <= {param})
ORDER BY turn.id {order};
