// Package backup writes and reads the files of a backup.
//
// A backup is one file, or a directory with a file for each part and one, MANIFEST, that lists them. A file is
//
//	"kvdbackup" version (1 byte) record…
//
// and a record is its kind (1 byte), the length of its payload (4 bytes, big endian), the payload, and the xxhash64 of all
// three (8 bytes, big endian). In their order:
//
//	header            BackupHeader: who was saved and when, settings, rules, the map
//	part              BackupPart: a span, as of one revision of the shard that held it
//	  pairs …         keys with their records, in the encoding of package snapshot/pairs
//	  part end        BackupPartEnd: how many, and the xxhash64 over the checksums of the pairs (8 bytes each, big endian)
//	part …
//	trailer           BackupTrailer: how many of everything, and the xxhash64 over the checksums of all earlier records
//
// In MANIFEST the parts name their files and have no pairs; such a file has a header, that part and a trailer of its own.
// The parts are in key order and cover every key once. So a byte that was changed, a record that is missing, repeated or
// in the wrong order, a file that was cut, lost or taken from another backup is found, and told with its name. MANIFEST
// comes last and, like a single file, under its name only when it is complete.
package backup
