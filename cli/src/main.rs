//! `trimtab`: one program, several roles.

mod arguments;
mod foreground;
mod image;
mod instance;
mod manifests;
mod node;
mod part;
mod plane;
mod print;
mod progress;
mod registries;
mod server;
mod token;
mod up;
mod verbs;
mod web;

use std::process::ExitCode;

/// Small objects of many threads: the system's allocator keeps too much of what was freed.
#[global_allocator]
static ALLOCATOR: runtime_core::ByRole<mimalloc::MiMalloc> = runtime_core::ByRole(mimalloc::MiMalloc);

fn main() -> ExitCode {
    arguments::run()
}
