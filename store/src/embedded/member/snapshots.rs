//! Snapshots: those that a member makes of itself, and those that come from a leader.

use raft::SnapshotStatus;
use raft::eraftpb::{ConfState, MessageType, Snapshot};

use super::{Disk, Identity, Member};
use crate::Error;
use crate::embedded::snapshot::{self, Meta, Writer};
use crate::embedded::{FIRST_INDEX, FIRST_TERM};
use crate::state::State;

/// The snapshot that a new member's disk begins with: nothing, and who belongs to the group.
pub(super) fn begin<D: Disk>(disk: &D, identity: &Identity) -> Result<Meta, Error> {
    let conf = ConfState { voters: identity.voters.clone(), ..ConfState::default() };
    let (cluster, member) = (identity.cluster, identity.member);
    let meta = Meta { cluster, member, index: FIRST_INDEX, term: FIRST_TERM, conf, installed: false };
    snapshot::install(disk, &meta, State::default())?;
    Ok(meta)
}

impl<D: Disk> Member<D> {
    /// Raft sends nothing more to a member until its snapshot is said to have arrived. Saying so at once is safe: raft
    /// then probes, and sends it again if it did not.
    pub(super) fn vouch_for_snapshots(&mut self) {
        let sent = self.turn.messages.iter().filter(|m| m.get_msg_type() == MessageType::MsgSnapshot);
        for to in sent.map(|m| m.to).collect::<Vec<_>>() {
            self.raft.report_snapshot(to, SnapshotStatus::Finish);
        }
    }

    /// Replaces everything by the leader's snapshot: first the file, then the log, then what is served.
    pub(super) fn install(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let (mut meta, state) = snapshot::load(snapshot.data.clone()).map_err(|(_, what)| Error::Corrupt(what))?;
        meta.member = self.raft.store().member;
        meta.conf = snapshot.get_metadata().get_conf_state().clone();
        meta.installed = true;
        let copy = snapshot::load(snapshot.data.clone()).map_err(|(_, what)| Error::Corrupt(what))?.1;
        snapshot::install(&self.disk, &meta, copy)?;
        self.log.clear(meta.index, meta.term)?;
        self.raft.mut_store().reset(&meta);
        self.served.replace(state);
        Ok(())
    }

    /// Makes a snapshot if one is due, at once. Who has a thread to spare lets that do it instead.
    pub fn snapshot_now(&mut self) -> Result<(), Error> {
        match self.snapshot_due() {
            Some((writer, disk)) => self.snapshot_taken(writer.save(&disk)),
            None => Ok(()),
        }
    }

    /// Begins a snapshot if one is due; its maker hands the result to [`Self::snapshot_taken`].
    pub(crate) fn snapshot_due(&mut self) -> Option<(Writer, D)> {
        let since = self.log.bytes().saturating_sub(self.log_at_snapshot);
        if self.snapshotting || since < self.settings.snapshot_bytes.max(self.snapshot_size) {
            return None;
        }
        // The log goes on meanwhile: a snapshot that fills the disk must not have taken its next segment's room.
        if let Err(error) = self.log.make_spare() {
            tracing::debug!(%error, "a snapshot begins though the log has no room to go on");
        }
        self.snapshotting = true;
        let meta = self.raft.store().meta();
        Some((Writer::new(self.served.clone(), meta), self.disk.clone()))
    }

    /// A snapshot was made, or not; `size` is what it has in bytes.
    pub(crate) fn snapshot_taken(&mut self, taken: Result<(Meta, usize), Error>) -> Result<(), Error> {
        self.snapshotting = false;
        match taken {
            Ok((meta, size)) => {
                self.snapshot_size = size;
                self.log.release(meta.index)?;
                self.raft.mut_store().release(meta.index, meta.term);
            }
            Err(error) => tracing::warn!(%error, "no snapshot was made; the log goes on"),
        }
        self.log_at_snapshot = self.log.bytes();
        Ok(())
    }
}
