use strict;
$| = 1;
my $leave = 0;
$SIG{TERM} = sub { $leave = 1 };
my %sums = map { $_ => $_ * $_ } 1 .. 1000;
open(my $file, '+>', 'perl-file') or die;
print $file "line one\n";
print "ready\n";
for (my $tick = 1; ; $tick++) {
    print "tick $tick\n";
    last if $leave or -e '/srv/go';
    select(undef, undef, undef, 0.025);
}
print "done\n";
print $file "line two\n";
seek($file, 0, 0);
my @lines = <$file>;
die unless @lines == 2 and $sums{999} == 998001;
exit 7;
