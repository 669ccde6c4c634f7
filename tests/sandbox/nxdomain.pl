#!/usr/bin/perl
# Answers every DNS question on ADDRESS:53 (UDP) with "no such name", and reaps orphans: it is PID 1 of a machine.
# usage: nxdomain.pl ADDRESS
use strict;
use warnings;
use Socket;

$SIG{CHLD} = 'IGNORE';
use constant IP_FREEBIND => 15;    # the link that carries the address comes later
socket(my $socket, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
setsockopt($socket, 0, IP_FREEBIND, 1) or die "freebind: $!";
bind($socket, sockaddr_in(53, inet_aton($ARGV[0]))) or die "bind $ARGV[0]: $!";

while (1) {
    my $client = recv($socket, my $query, 4096, 0) or next;
    my $question = question($query);
    next unless defined $question;
    my ($id, $flags) = unpack('nC', $query);
    # a response with the same opcode and recursion bit; recursion available, NXDOMAIN; one question
    send($socket, pack('nCCnnnn', $id, 0x80 | ($flags & 0x79), 0x83, 1, 0, 0, 0) . $question, 0, $client);
}

# The first question of a query as it stands in the packet: after a head of 12 bytes, labels up to an empty one, then type and class.
sub question {
    my ($query) = @_;
    my $at = 12;
    while ($at < length($query)) {
        my $length = ord(substr($query, $at, 1));
        return substr($query, 12, $at + 5 - 12) if $length == 0 && $at + 5 <= length($query);
        return undef if $length == 0 || $length > 63;
        $at += $length + 1;
    }
    return undef;
}
