//! Options of consumers of PostgreSQL.

use std::time::Duration;

use crate::config::kind::{Secret, UpTo};
use crate::config::schema::section;

section! {
    /// `consumers[].postgresql`.
    OutboxSection titled "PostgreSQL outbox: `consumers[].postgresql`" {
        dsn: Secret = "", "Address of the database: postgres://user:password@host:5432/database, or keys and values as libpq has them (host=… user=…). sslmode is prefer by default.";
        outbox_table_name: String = "", "Table with the columns id, method, payload and partition.";
        num_partitions: UpTo<256> = 1, "Number of partitions, from 0 on. Each has a connection of its own on each node.";
        partition_select_limit: UpTo<10_000> = 100, "Maximum number of rows of one transaction.";
        partition_poll_interval: Duration = "300ms", "Time between two looks at a partition without a notification.";
        partition_notification_channel: String = "", "Channel of NOTIFY with the number of a partition as payload. Empty only polls.";
        partition_notification_dsn: Secret = "", "Address of the database for LISTEN, if dsn is that of a pooler.";
        use_try_lock: bool = false, "Look again after the poll interval while another node has the lock of a partition, instead of waiting in the database.";
        dead_letter_table_name: String = "", "Table with the columns id, method, payload, partition and error, to which rows are moved that can never be handled. Empty removes them; they are logged and counted in any case.";
        tls: PostgresTlsSection;
    }
}

section! {
    /// `consumers[].postgresql_cdc`.
    CaptureSection titled "PostgreSQL change data capture: `consumers[].postgresql_cdc`" {
        dsn: Secret = "", "Address of the database, as for an outbox. The user needs the right to replicate.";
        slot_name: String = "tidings", "Replication slot, which keeps the place in the log of the database. All nodes of one installation need the same.";
        create_slot: bool = false, "Create the slot if it is missing.";
        publication_name: String = "tidings", "Publication of the database, which names the tables.";
        create_publication: bool = false, "Create the publication if it is missing.";
        tables: Vec<String> = [], "Tables of a publication that is created. Empty means all tables, which needs a superuser.";
        channels: Vec<String> = ["db:{schema}.{table}"], "Channels of a changed row, such as \"db:{table}:{id}\". {schema}, {table} and {operation} are replaced by those of the change, other names in braces by columns of the row.";
        max_row_bytes: UpTo<67_108_864> = 1048576, "Maximum bytes of a changed row. Longer ones are passed over; they are logged and counted.";
        tls: PostgresTlsSection;
    }
}

section! {
    /// `consumers[].postgresql.tls` and `consumers[].postgresql_cdc.tls`.
    PostgresTlsSection {
        enabled: bool = false, "Use TLS and verify the certificate, whatever sslmode is.";
        server_ca_pem: String = "", "CA certificates that are trusted instead of the public ones: PEM, PEM in base64, or the path of a PEM file.";
        server_name: String = "", "Host name that the certificate must have. Empty means the host of the DSN.";
        cert_pem: String = "", "Certificate chain that this node presents: PEM, PEM in base64, or the path of a PEM file. Empty presents none.";
        key_pem: Secret = "", "Private key of that certificate: PEM, PEM in base64, or the path of a PEM file.";
    }
}
