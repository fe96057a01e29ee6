"""View models of runs, comparisons and hubs, shared by terminal, plots, report and dashboard."""
