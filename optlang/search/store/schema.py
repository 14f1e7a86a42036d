"""The tables of a search's file.

    meta         settings, baselines, versions; by name, as JSON
    genomes      every program that was trained: branch, number, fingerprint, text, parent, what changed, size
    assessments  what training showed, by program, level, tasks and seeds; never replaced
    strands      each branch as it was after its last whole round
    curve        the best fitness of each branch, whenever it rose
    jobs         results of a round that is not over: after a kill they are not trained again
    events       all else in order: points of the meta-validation, tuning, the end
"""

FORMAT = 3
NAME = "optlang search"
SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE genomes (
  branch TEXT, number INTEGER, fingerprint TEXT NOT NULL, text TEXT NOT NULL, parent INTEGER, change TEXT NOT NULL,
  born INTEGER NOT NULL, statements INTEGER NOT NULL, slots INTEGER NOT NULL, PRIMARY KEY (branch, number)) WITHOUT ROWID;
CREATE TABLE assessments (
  branch TEXT, number INTEGER, level TEXT, tasks TEXT, seeds TEXT, fitness REAL NOT NULL, error REAL NOT NULL, worst REAL NOT NULL,
  steps INTEGER NOT NULL, seconds REAL NOT NULL, status TEXT NOT NULL, detail TEXT NOT NULL,
  PRIMARY KEY (branch, number, level, tasks, seeds)) WITHOUT ROWID;
CREATE INDEX by_fitness ON assessments (level, fitness);
CREATE TABLE strands (branch TEXT PRIMARY KEY, state TEXT NOT NULL, rounds INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE curve (branch TEXT, children INTEGER, spent INTEGER, fitness REAL, PRIMARY KEY (branch, spent, children)) WITHOUT ROWID;
CREATE TABLE jobs (digest TEXT PRIMARY KEY, result TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (number INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL);
"""
