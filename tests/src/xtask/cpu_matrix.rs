//! `cargo xtask cpu-matrix`: the committed table, measured anew.

use anyhow::{Context, Result, ensure};

use crate::cpus::matrix::Matrix;
use crate::cpus::measure::{self, Model};
use crate::scratch::Scratch;

pub(super) fn run(only: &[String], write: bool) -> Result<()> {
    let named = |name: &String| -> Result<Model> {
        let model = measure::ALL.iter().find(|model| model.name == name);
        let names = measure::ALL.map(|model| model.name).join(", ");
        model
            .copied()
            .with_context(|| format!("no CPU {name}, only {names}"))
    };
    let models = if only.is_empty() {
        measure::ALL.to_vec()
    } else {
        only.iter().map(named).collect::<Result<_>>()?
    };
    ensure!(
        !write || only.is_empty(),
        "the committed table has all CPUs"
    );
    let scratch = Scratch::new("cpu-matrix")?;
    let matrix = measure::measure(&models, scratch.path())?;
    print!("{}", matrix.markdown());
    if write {
        matrix.save(&Matrix::committed())?;
    }
    let mut found = matrix.contradictions();
    let committed = Matrix::load(&Matrix::committed())?;
    let differs = |thaw: &&_| !committed.thaws.contains(thaw);
    let differing = matrix.thaws.iter().filter(differs);
    found.extend(differing.map(|thaw| format!("the committed table says otherwise of {thaw:?}")));
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
