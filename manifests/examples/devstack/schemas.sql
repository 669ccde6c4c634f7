CREATE SCHEMA forgejo;
CREATE SCHEMA reference;
