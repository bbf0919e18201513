// Package sftp keeps objects as files of a directory on an SFTP server.
//
// URL: sftp://user@host:port/path; a path that begins with /~/ is below the
// user's home, port and user default to 22 and the local user's name. Parameters:
//
//   - identity=FILE: a private key without passphrase, any number of them.
//     Without it: the keys of the agent at SSH_AUTH_SOCK, then id_ed25519,
//     id_ecdsa and id_rsa of ~/.ssh.
//   - known-hosts=FILE: the server's keys, any number of files. Without it:
//     ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts.
//   - host-key=KEY: the server's key itself, as known_hosts has it ("ssh-ed25519
//     AAAA..."), instead of those files.
//   - create=true makes the directory, as in package dir.
//
// A password comes from LTX_SFTP_PASSWORD alone, never from the URL. ~/.ssh/config
// is not read. A server whose key is unknown or another one is refused, always.
//
// The layout is that of package dir, which can read the same directory and be
// read; so are the limits. The account needs to read, write and search the
// directory; reading alone suffices to restore.
//
// One connection carries all calls. It is opened by the first and opened again
// by the first call after it was lost; what was under way then fails as
// temporary. A server that stays silent is given up after three KeepAlives. A
// call whose context ends returns at once, its answer is dropped when it comes.
//
// What depends on the server, by the extensions of OpenSSH:
//
//   - posix-rename: without it an object cannot be replaced, only made.
//   - hardlink: without it Put with IfAbsent works under a claim file; a process
//     killed within it keeps others off that key for a day.
//   - fsync: without it an object lasts when the server writes it back. The
//     protocol has no way to sync a directory.
//
// Limits: timestamps are whole seconds; two objects of one key, of one size and
// second, cannot be told apart by their metadata. A directory is listed whole at
// a time. The protocol has no error for a full disk: it is a "failure".
package sftp
