//! CustomResourceDefinitions: rows added and removed at run time.

use crate::core::Core;

/// Makes the rows of the definitions there are, and follows their changes.
pub async fn start(_core: &Core) -> Result<(), store::Error> {
    Ok(())
}
