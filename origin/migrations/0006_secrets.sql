-- A stream's credentials, encrypted where there is a key; apart from the document, which can be read without it.
-- '': still in the document, written by an older program.
ALTER TABLE streams ADD COLUMN secrets TEXT NOT NULL DEFAULT '';
