import { expect } from 'chai';
import { backupStatusOf } from '../../../operator/backup-status.ts';
import type { Json } from '../../../operator/runtime/api.ts';
import type { V1Job, V1Pod } from '../../../operator/runtime/kubernetes.ts';

function jobOf(name: string, end?: { type: 'Complete' | 'Failed'; at: string }): Json<V1Job> {
  return {
    metadata: { name, uid: `uid-${name}` },
    status:
      end === undefined
        ? { active: 1 }
        : {
            conditions: [
              {
                type: end.type,
                status: 'True',
                lastTransitionTime: end.at,
                message: 'has reached its limit',
              },
            ],
            ...(end.type === 'Complete' ? { completionTime: end.at } : {}),
          },
  };
}

function podOf(job: string, message: string): Json<V1Pod> {
  const ownerReferences = [
    { apiVersion: 'batch/v1', kind: 'Job', name: job, uid: `uid-${job}`, controller: true },
  ];
  return {
    metadata: { name: `${job}-pod`, ownerReferences },
    status: {
      containerStatuses: [
        {
          name: 'backup',
          image: '',
          imageID: '',
          ready: false,
          restartCount: 0,
          state: { terminated: { exitCode: 0, message } },
        },
      ],
    },
  };
}

const summary = JSON.stringify({ time: 't', id: 'b1', clusterId: 'c', records: 7, bytes: 99, seconds: 1 });
const done = { type: 'Complete', at: '2030-01-02T00:00:00Z' } as const;
const failed = { type: 'Failed', at: '2030-01-03T00:00:00Z' } as const;

describe('backupStatusOf', () => {
  it('is nothing before a job has ended', () => {
    expect(backupStatusOf(undefined, [jobOf('a')], [])).to.equal(undefined);
  });

  it('takes time, name and sizes from the newest completed job', () => {
    const earlier = jobOf('old', { type: 'Complete', at: '2030-01-01T00:00:00Z' });
    expect(
      backupStatusOf(undefined, [jobOf('a', done), earlier], [podOf('a', `${summary}\n`)]),
    ).to.deep.equal({
      lastSuccessTime: done.at,
      lastSuccessName: 'b1',
      lastSuccessSizeBytes: 99,
      lastSuccessRecords: 7,
    });
  });

  it('keeps what was copied when the jobs are gone', () => {
    const before = { lastSuccessTime: done.at, lastSuccessName: 'b1' };
    expect(backupStatusOf(before, [], [])).to.deep.equal(before);
  });

  it('says why a job failed, and keeps the last good one', () => {
    const pods = [podOf('a', summary), podOf('b', JSON.stringify({ time: 't', error: 'no member answers' }))];
    expect(backupStatusOf(undefined, [jobOf('a', done), jobOf('b', failed)], pods)).to.include({
      lastSuccessName: 'b1',
      lastFailureTime: failed.at,
      lastFailureMessage: 'b: no member answers; has reached its limit',
    });
  });

  it('takes a job without a readable summary for a backup all the same', () => {
    expect(backupStatusOf(undefined, [jobOf('a', done)], [podOf('a', 'text')])).to.deep.equal({
      lastSuccessTime: done.at,
    });
  });

  it('completes the entry when the summary is seen after the job', () => {
    const first = backupStatusOf(undefined, [jobOf('a', done)], []);
    expect(backupStatusOf(first, [jobOf('a', done)], [podOf('a', summary)])).to.include({
      lastSuccessName: 'b1',
    });
  });
});
