"""What the commands do with files, one module each: read, check, call the library, write; each returns what there is to print."""
