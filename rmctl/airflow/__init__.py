"""Airflow's DAG files as workflows of the portal: what they say is read by Airflow itself, the rest happens here."""
