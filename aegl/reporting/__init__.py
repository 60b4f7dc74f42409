"""``report.html``: one page that tells how a run went, or how several compare, and opens without a network."""
