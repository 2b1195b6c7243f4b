//! A job that counts, so that a line too few, too many or from another process shows.

use anyhow::{Result, ensure};
use tests::job::Job;

/// Its file's name.
pub(crate) const NAME: &str = "count.sh";

/// Each line says where the job is, what it has summed up, and its pid.
const COUNT: &str = r#"#!/bin/sh
i=0 sum=0
while [ $i -lt LAST ]; do
    i=$((i + 1)) sum=$(((sum * 31 + i) % 1000003))
    echo "$i $sum $$" >>numbers
    echo "line $i"
    echo "warning $i" >&2
    sleep 0.05
done
echo "$sum" >result
exit 7
"#;

/// One that counts so far, in a twentieth of a second for each.
pub(crate) fn program(last: u32) -> String {
    COUNT.replacen("LAST", &last.to_string(), 1)
}

/// Waits until a running job has counted so far.
pub(crate) fn wait(job: &Job<'_>, enough: u32) -> Result<()> {
    job.wait_scratch(".criu/srv/numbers", |text| {
        (text.lines().count() as u32 >= enough).then_some(())
    })
}

/// Every line once, in order, from one process; every stream too; and no image came home with the results.
pub(crate) fn is_whole(job: &Job<'_>, last: u32) -> Result<()> {
    let mut sum = 0;
    let mut expected = Vec::new();
    for number in 1..=last {
        sum = (sum * 31 + number) % 1_000_003;
        // Pid 2 is the first that a fresh pid namespace gives after its init.
        expected.push(format!("{number} {sum} 2"));
    }
    let numbers = job.file("numbers")?;
    ensure!(numbers.lines().eq(&expected), "numbers:\n{numbers}");
    ensure!(job.file("result")?.trim() == sum.to_string(), "a wrong sum");
    let lines = |word: &str| {
        (1..=last)
            .map(|i| format!("{word} {i}\n"))
            .collect::<String>()
    };
    ensure!(job.output()? == lines("line"), "stdout:\n{}", job.output()?);
    ensure!(
        job.error()? == lines("warning"),
        "stderr:\n{}",
        job.error()?
    );
    let image = job.file("checkpoint.criu");
    ensure!(image.is_err(), "the image came home with the results");
    Ok(())
}
