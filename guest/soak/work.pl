use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use List::Util qw(reduce sum);
use Math::BigInt;
my $state = 7;
sub random { $state = ($state * 16807) % 2147483647; return $state; }
my $out = '';
my %count;
$count{ random() % 2000 }++ for 1 .. 200000;
$out .= join ',', map { "$_:$count{$_}" } sort { $a <=> $b } keys %count;
my $text = join ' ', map { sprintf '%x', random() } 1 .. 30000;
my $found = () = $text =~ /\b([a-f]+\d+[a-f]*)\b/g;
(my $changed = $text) =~ s/(\d+)/length($1)/ge;
$out .= "$found " . sha256_hex($changed);
$out .= Math::BigInt->new(3)->bpow(2000)->bmod(Math::BigInt->new('1000000007'));
my @sorted = sort { $a <=> $b } map { random() } 1 .. 50000;
$out .= $sorted[$_ * 100] for 0 .. 400;
for my $i (1 .. 300) { $out .= eval "my \$s = $i; \$s = (\$s * 31 + \$_) % 65521 for 1..50; \$s"; }
$out .= unpack '%32C*', pack 'N*', map { random() } 1 .. 10000;
my @pids;
for my $n (1 .. 8) {
    my $pid = open my $pipe, '-|';
    if (!$pid) { print sha256_hex(join '', map { $n * $_ % 977 } 1 .. 20000); exit 0; }
    $out .= do { local $/; <$pipe> };
    close $pipe;
}
print sha256_hex($out), "\n";
