"""What a run costs and where it ran: seconds, bytes, joules, environment. Judging a cost is not done here."""
