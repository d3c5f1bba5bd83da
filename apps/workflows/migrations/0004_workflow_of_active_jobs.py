from django.db import migrations


class Migration(migrations.Migration):
    """Budgets of workflows bind the jobs of runs that are under way too."""

    dependencies = [
        ('workflows', '0003_fewer_indexes'),
        ('jobs', '0010_job_workflow'),
    ]

    operations = [
        migrations.RunSQL(
            "UPDATE jobs_job j SET workflow = w.name "
            "FROM workflows_task t JOIN workflows_run r ON r.id = t.run_id JOIN workflows_workflow w ON w.id = r.workflow_id "
            "WHERE t.job_id = j.id AND j.ended_at IS NULL",
            migrations.RunSQL.noop,
        ),
    ]
