//! Ways out: to nodes (log, exec, attach, port-forward), services and pods, all through one `Dial`.
