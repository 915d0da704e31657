# The same in Perl: worker.pl PORT LOG [LOCKFILE]. Faults: crash, hang (busy), lock.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX qw(strftime);
my ($port, $log, $lock) = @ARGV;
sub note { open my $out, '>>', $log or die; print $out strftime('%Y-%m-%d %H:%M:%S', localtime), " $_[0] $_[1]\n"; close $out }
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 64, ReuseAddr => 1) or do { note('FATAL', "cannot listen: $!"); exit 1 };
my $leaked = 0;
while (my $c = $server->accept) {
    my $line = <$c> // '';
    while (defined(my $l = <$c>)) { last if $l =~ /^\r?\n$/ }
    my ($status, $body) = ('200 OK', "ok\n");
    if ($line =~ m{^POST /fault/(\w+)}) {
        my $fault = $1;
        print $c "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"; close $c;
        if ($fault eq 'crash') { note('ERROR', 'Illegal division by zero at worker.pl line 40.'); exit 255 }
        if ($fault eq 'hang') { 1 while 1 }
        if ($fault eq 'leak') { $leaked = 1 }
        next;
    }
    if ($lock && -e $lock) { ($status, $body) = ('503 Service Unavailable', "broken\n"); note('ERROR', "lock file $lock exists, another worker seems to run") }
    if ($leaked) { ($status, $body) = ('503 Service Unavailable', "broken\n"); note('ERROR', 'Out of memory in perl:util:safesysmalloc') }
    print $c "HTTP/1.0 $status\r\nContent-Length: ", length($body), "\r\n\r\n$body";
    close $c;
}
